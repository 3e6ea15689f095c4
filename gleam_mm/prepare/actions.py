"""The commands of tools/prepare_data.py."""

import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gleam_mm import errors
from gleam_mm.datasets.fewshot import FOLDER as FGVC_FOLDER
from gleam_mm.datasets.fewshot import fgvc_task
from gleam_mm.datasets.image_list import data_folder
from gleam_mm.datasets.vtab import FOLDER as VTAB_FOLDER
from gleam_mm.datasets.vtab import VTAB_TASKS, vtab_task
from gleam_mm.prepare import printout
from gleam_mm.prepare.build import (
    Progress,
    Published,
    build,
    build_published,
    find_published,
)
from gleam_mm.prepare.origins import FGVC_LISTS, FGVC_ORIGINS, VTAB_ORIGINS
from gleam_mm.prepare.plan import Plan, plan_fgvc, plan_from_tfds, plan_vtab
from gleam_mm.prepare.sources import (
    Pool,
    open_folder,
    open_huggingface,
    open_torchvision,
)
from gleam_mm.prepare.verify import find_layouts, verify


def run_verify(args: Namespace) -> int:
    """Checks lists and prints the table. Returns 1 where there is a fault."""
    with errors.setup():
        layouts = find_layouts(args.root)
        wanted = _tasks_of(layouts, args.tasks)
    reports = []
    for layout, tasks in wanted.items():
        print(f'{layouts[layout]}\n{printout.header()}')
        for checked in verify(
            layout, layouts[layout], tasks, args.decode, args.workers, args.any_size
        ):
            reports.append(checked)
            print(printout.row(checked), flush=True)
            if args.per_class:
                print(printout.per_class(checked))
        print()
    if told := printout.problems(reports, args.all):
        print(told)
    print(printout.summary(reports))
    return int(any(checked.faults for checked in reports))


def _tasks_of(layouts: dict[str, Path], names: list[str] | None) -> dict[str, list[str] | None]:
    """The tasks to check of each collection; a name may be of either."""
    if not names:
        return dict.fromkeys(layouts)
    wanted: dict[str, list[str]] = {}
    resolvers = {VTAB_FOLDER: vtab_task, FGVC_FOLDER: fgvc_task}
    for name in names:
        unknown = []
        for layout in layouts:
            try:
                task = resolvers[layout](name)
            except ValueError as error:
                unknown.append(error)
            else:
                wanted.setdefault(layout, []).append(task)
        if len(unknown) == len(layouts):
            raise unknown[0]
    return wanted


def run_vtab(args: Namespace) -> int:
    """Builds tasks of VTAB-1K."""
    out = data_folder(VTAB_FOLDER, args.out)
    _check_sizes(args.sizes, 3, 'train800, val200 and test')
    for name in args.tasks:
        with errors.setup():
            task = vtab_task(name)
            plan = _told_where(VTAB_ORIGINS[task].where, lambda task=task: _plan_vtab(task, args))
        _carry_out(plan, out, args)
    return 0


def run_fgvc(args: Namespace) -> int:
    """Builds few-shot FGVC sets."""
    out = data_folder(FGVC_FOLDER, args.out)
    _check_sizes(args.sizes, 2, 'val and test')
    for name in args.tasks:
        with errors.setup():
            task = fgvc_task(name)
            plan = _told_where(FGVC_ORIGINS[task], lambda task=task: _plan_fgvc(task, args))
        _carry_out(plan, out, args)
    return 0


def run_where(args: Namespace) -> int:
    """Tells where the original datasets come from."""
    print('VTAB-1K')
    for task in VTAB_TASKS:
        print(f'  {task}: {VTAB_ORIGINS[task].where}')
    print('Few-shot FGVC')
    for task, where in FGVC_ORIGINS.items():
        print(f'  {task}: {where}')
    print(f'  lists: {FGVC_LISTS}')
    return 0


COMMANDS = {'verify': run_verify, 'vtab': run_vtab, 'fgvc': run_fgvc, 'where': run_where}


def _plan_vtab(task: str, args: Namespace) -> Plan:
    source = Path(args.source).expanduser()
    if args.kind == 'tfds':
        if args.sizes:
            raise ValueError('--sizes: a TFDS copy gives exactly the images of VTAB-1K')
        return plan_from_tfds(task, source)
    pools = _pools(task, source, args)
    sizes = tuple(args.sizes) if args.sizes else None
    return plan_vtab(task, pools, _source(source, args), args.seed, sizes)


def _plan_fgvc(task: str, args: Namespace) -> Plan | Published:
    source = Path(args.source).expanduser()
    if args.lists:
        return find_published(task, Path(args.lists).expanduser(), source)
    pools = _pools(task, source, args)
    sizes = tuple(args.sizes) if args.sizes else None
    described = _source(source, args)
    return plan_fgvc(task, pools, described, args.shots, args.seeds, args.seed, sizes)


def _pools(task: str, source: Path, args: Namespace) -> dict[str, Pool]:
    # One folder for several tasks has a folder for each.
    if args.kind != 'torchvision' and len(args.tasks) > 1 and (source / task).exists():
        source = source / task
    if args.kind == 'torchvision':
        return open_torchvision(task, source)
    if args.kind == 'huggingface':
        return open_huggingface(source, args.image_column, args.label_column)
    named = {split: getattr(args, f'{split}_list') for split in ('train', 'val', 'test')}
    lists = {split: Path(file).expanduser() for split, file in named.items() if file}
    return open_folder(task, source, lists)


def _source(source: Path, args: Namespace) -> dict:
    return {'kind': args.kind, 'path': str(source.absolute())}


def _told_where(where: str, plan: Callable[[], Plan | Published]) -> Plan | Published:
    try:
        return plan()
    except FileNotFoundError as error:
        raise FileNotFoundError(f'{error}. The original comes from: {where}') from error


def _check_sizes(sizes: list[int] | None, number: int, names: str) -> None:
    if sizes is not None and (len(sizes) != number or min(sizes) < 1):
        raise errors.UserError(f'--sizes: {number} positive numbers are expected, for {names}')


def _carry_out(plan: Plan | Published, out: Path, args: Namespace) -> None:
    if args.dry_run:
        print(printout.describe_plan(plan, out))
        return
    with errors.setup(), _progress() as progress:
        if isinstance(plan, Published):
            written = build_published(plan, out, progress)
        else:
            written = build(plan, out, args.workers, progress)
    print(f'{out / plan.task}: {"written" if written else "there already, nothing to do"}')
    print(f'  {printout.notice(plan.manifest)}')


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on the terminal; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn())
    with Bars(
        *columns, TimeRemainingColumn(), console=console, disable=not sys.stderr.isatty()
    ) as bars:
        known = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in known:
                known[what] = bars.add_task(what, total=total)
            bars.update(known[what], completed=done)

        yield show
