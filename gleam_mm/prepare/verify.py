"""Checks datasets on disk: every line of every list, the files named and, if wanted, each image.

VTAB-1K's and the published few-shot lists are known exactly, so that sizes, labels and counts are
compared with what they must be.
"""

import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gleam_mm.datasets.fewshot import (
    FGVC_SEEDS,
    FGVC_SHOTS,
    FGVC_TASKS,
    fgvc_task,
    image_folder,
    list_file,
    task_folder,
)
from gleam_mm.datasets.fewshot import FOLDER as FGVC_FOLDER
from gleam_mm.datasets.image_list import data_folder
from gleam_mm.datasets.images import UnreadableImageError, load_image
from gleam_mm.datasets.lists import ImageListError, Line, parse_line, raw_lines
from gleam_mm.datasets.vtab import FOLDER as VTAB_FOLDER
from gleam_mm.datasets.vtab import SPLIT_SIZES, SPLITS, VTAB_TASKS, vtab_task
from gleam_mm.machine import cores
from gleam_mm.prepare.manifest import read_manifest

__all__ = ['ListReport', 'find_layouts', 'verify']


@dataclass
class ListReport:
    """What is known about one list after it was checked.

    Attributes:
        task: Folder name of the task.
        split: Name of the split.
        num_classes: Classes that the task has.
        lines: Lines with a path and a label.
        counts: Label -> lines.
        faults: What is wrong; each names file and line.
        warnings: What is unusual and may be meant.
        choice: What the manifest says about where the choice of images is from; '' without one.
    """

    task: str
    split: str
    num_classes: int
    lines: int = 0
    counts: Counter = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    choice: str = ''


@dataclass(frozen=True)
class _List:
    """A list to check, and what it must be.

    Attributes:
        file: The list.
        image_root: What its paths are relative to; None where the list's first image tells.
        size: Lines it must have, or None.
        each: Lines a class must have, or None.
        twice: Whether each image may be listed twice.
    """

    task: str
    split: str
    num_classes: int
    file: Path
    image_root: Path | None
    size: int | None
    each: int | None = None
    twice: bool = False


def find_layouts(root: str | Path | None = None) -> dict[str, Path]:
    """The collections at a place: layout (``vtab-1k``, ``fgvc``) -> its folder.

    Args:
        root: One of those folders, or the folder that holds them. By default the data root.

    Raises:
        FileNotFoundError: There is neither.
    """
    if root is None:
        found = {name: data_folder(name) for name in (VTAB_FOLDER, FGVC_FOLDER)}
        found = {name: folder for name, folder in found.items() if folder.is_dir()}
        root = data_folder(VTAB_FOLDER).parent
    else:
        root = Path(root).expanduser()
        found = {name: root / name for name in (VTAB_FOLDER, FGVC_FOLDER) if (root / name).is_dir()}
        if any((root / task).is_dir() for task in VTAB_TASKS):
            found = {VTAB_FOLDER: root}
        elif any(task_folder(task, root).is_dir() for task in FGVC_TASKS):
            found = {FGVC_FOLDER: root}
    if not found:
        raise FileNotFoundError(
            f'{root}: there is neither {VTAB_FOLDER}/ nor {FGVC_FOLDER}/, nor a folder of one of '
            'their tasks; give the folder that holds them'
        )
    return found


def verify(
    layout: str,
    root: Path,
    tasks: Sequence[str] | None = None,
    decode: bool = False,
    workers: int | None = None,
    any_size: bool = False,
) -> Iterator[ListReport]:
    """Checks the lists of a collection, one after the other.

    Args:
        layout: ``vtab-1k`` or ``fgvc``.
        root: The folder that holds the tasks' folders.
        tasks: Names of tasks; all by default.
        decode: Whether to decode every image, in parallel.
        workers: Processes that decode; by default one for each core that there is for this one.
        any_size: Whether lists may be shorter or longer than the published ones.

    Yields:
        A report for each list.

    Raises:
        ValueError: A task is unknown.
    """
    vtab = layout == VTAB_FOLDER
    names = [(vtab_task if vtab else fgvc_task)(task) for task in tasks or ()]
    with _decoders(workers) if decode else nullcontext() as pool:
        for task in names or (VTAB_TASKS if vtab else FGVC_TASKS):
            lists = _vtab_lists(task, root) if vtab else _fgvc_lists(task, root)
            yield from _verify_task(lists, pool, any_size, disjoint=not vtab)


def _decoders(workers: int | None) -> ProcessPoolExecutor:
    """Processes that decode images. Forked ones start at once; nothing here runs threads."""
    context = multiprocessing.get_context('fork' if os.name == 'posix' else 'spawn')
    return ProcessPoolExecutor(workers or cores(), context, initializer=_ignore_interrupts)


def _vtab_lists(task: str, root: Path) -> list[_List]:
    folder, facts = root / task, VTAB_TASKS[task]
    return [
        _List(
            task,
            split,
            facts.num_classes,
            folder / f'{split}.txt',
            folder,
            SPLIT_SIZES.get(split, facts.test_size),
        )
        for split in SPLITS
    ]


def _fgvc_lists(task: str, root: Path) -> list[_List]:
    folder, facts = task_folder(task, root), FGVC_TASKS[task]
    lists = []
    for shots in FGVC_SHOTS:
        for seed in FGVC_SEEDS:
            twice = task == 'oxford_pets' and shots == 1
            each = shots * (2 if twice else 1)
            file = list_file(folder, 'train', shots, seed)
            if file.is_file():
                size = each * facts.num_classes
                split = f'{shots}-shot, seed {seed}'
                classes = facts.num_classes
                lists.append(_List(task, split, classes, file, None, size, each, twice))
    if not lists:  # told as missing
        file = list_file(folder, 'train', FGVC_SHOTS[0], FGVC_SEEDS[0])
        lists.append(_List(task, '1-shot, seed 0', facts.num_classes, file, None, None))
    for split, size in (('val', facts.val_size), ('test', facts.test_size)):
        file = list_file(folder, split)
        lists.append(_List(task, split, facts.num_classes, file, None, size))
    return lists


def _verify_task(
    lists: Sequence[_List], pool: ProcessPoolExecutor | None, any_size: bool, disjoint: bool
) -> Iterator[ListReport]:
    reports, owners = {}, {}
    for spec in lists:
        report = ListReport(spec.task, spec.split, spec.num_classes)
        reports[spec.split] = report
        if not spec.file.is_file():
            there = spec.file.exists()
            report.faults.append(
                f'{spec.file}: {"is no regular file" if there else "does not exist"}'
            )
            yield report
            continue
        lines = list(_lines(spec.file, report))
        report.lines = len(lines)
        report.counts = Counter(line.label for line in lines)
        folder = spec.image_root or spec.file.parent.parent  # few-shot lists have one of their own
        manifest = read_manifest(folder)
        report.choice = manifest.get('choice', '') if manifest else ''
        _check_labels(spec, lines, report)
        if not any_size:
            _check_sizes(spec, report)
        _check_duplicates(spec, lines, report)
        if disjoint:
            _check_disjoint(spec, lines, owners, report)
        root = spec.image_root or image_folder(folder, lines[0].image if lines else '')
        there = _check_files(spec.file, root, lines, report)
        if pool is not None:
            _check_images(spec.file, there, pool, report)
        if spec.split == 'train800val200':
            _check_union(spec, reports)
        yield report


def _lines(file: Path, report: ListReport) -> Iterator[Line]:
    for number, raw in raw_lines(file):
        try:
            yield parse_line(raw, number, file)
        except ImageListError as error:
            report.faults.append(str(error))


def _check_labels(spec: _List, lines: Sequence[Line], report: ListReport) -> None:
    for line in lines:
        if not 0 <= line.label < spec.num_classes:
            report.faults.append(
                f'{spec.file}, line {line.number}: label {line.label} is out of range, '
                f'0 to {spec.num_classes - 1}'
            )


def _check_sizes(spec: _List, report: ListReport) -> None:
    if spec.size is not None and report.lines != spec.size:
        report.faults.append(f'{spec.file}: {report.lines:,} lines, there must be {spec.size:,}')
    elif spec.each is not None:
        odd = [label for label in range(spec.num_classes) if report.counts[label] != spec.each]
        if odd:
            report.faults.append(
                f'{spec.file}: {len(odd)} classes have not {spec.each} lines, the first is class '
                f'{odd[0]} with {report.counts[odd[0]]}'
            )


def _check_duplicates(spec: _List, lines: Sequence[Line], report: ListReport) -> None:
    first: dict[str, Line] = {}
    again = []
    for line in lines:
        earlier = first.setdefault(line.image, line)
        if earlier is line:
            continue
        if earlier.label != line.label:
            report.faults.append(
                f'{spec.file}, line {line.number}: {line.image} has label {line.label} here and '
                f'{earlier.label} in line {earlier.number}'
            )
        else:
            again.append((line, earlier))
    if not again or (spec.twice and len(again) == len(first) == len(lines) // 2):
        return
    line, earlier = again[0]
    report.warnings.append(
        f'{spec.file}, line {line.number}: {line.image} is in line {earlier.number} already'
        + (f'; {len(again) - 1:,} more lines repeat another' if len(again) > 1 else '')
    )


def _check_disjoint(
    spec: _List, lines: Sequence[Line], owners: dict[str, Path], report: ListReport
) -> None:
    """No image of val or test is in another kind of split; training lists may share images."""
    kind = spec.split if spec.split in ('val', 'test') else 'train'
    for line in lines:
        other_kind, other_file = owners.setdefault(line.image, (kind, spec.file))
        if other_kind != kind:
            report.faults.append(
                f'{spec.file}, line {line.number}: {line.image} is in {other_file.name} as well'
            )


def _check_files(
    file: Path, root: Path, lines: Sequence[Line], report: ListReport
) -> list[tuple[int, str]]:
    """Looks for the files, a folder at a time. Returns line numbers and paths of those there."""
    sizes: dict[str, dict[str, int]] = {}
    there = []
    for line in lines:
        path = f'{root}{os.sep}{line.image}'
        folder, _, name = path.rpartition('/')
        if folder not in sizes:
            sizes[folder] = _sizes(folder)
        size = sizes[folder].get(name)
        if size is None:
            report.faults.append(f'{file}, line {line.number}: {path} does not exist')
        elif size == 0:
            report.faults.append(f'{file}, line {line.number}: {path} is empty')
        else:
            there.append((line.number, path))
    return there


def _sizes(folder: str) -> dict[str, int]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
    except OSError:
        return {}


def _check_images(
    file: Path, there: Sequence[tuple[int, str]], pool: ProcessPoolExecutor, report: ListReport
) -> None:
    paths = list(dict.fromkeys(path for _, path in there))
    found = dict(zip(paths, pool.map(look_at, paths, chunksize=32), strict=True))
    for number, path in there:
        if found[path].error is not None:
            report.faults.append(f'{file}, line {number}: {found[path].error}')
    plain = [(number, path) for number, path in there if found[path].one_colour]
    if plain:
        number, path = plain[0]
        more = f', and {len(plain) - 1:,} more are so too' if len(plain) > 1 else ''
        report.warnings.append(f'{file}, line {number}: {path} is of one colour{more}')


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent tells of Ctrl-C, once


class Look(NamedTuple):
    """What an image file is like: why it cannot be decoded, or None, and whether it is blank."""

    error: str | None
    one_colour: bool = False


def look_at(path: str) -> Look:
    """Decodes an image completely."""
    try:
        image = load_image(path)
    except UnreadableImageError as error:
        return Look(str(error))
    # A single band has one pair of extrema, several have a pair each.
    extrema = np.reshape(image.getextrema(), (-1, 2))
    return Look(None, bool((extrema[:, 0] == extrema[:, 1]).all()))


def _check_union(spec: _List, reports: dict[str, ListReport]) -> None:
    parts = [reports[name] for name in ('train800', 'val200')]
    union = reports[spec.split]
    if all(part.lines for part in parts) and union.counts != parts[0].counts + parts[1].counts:
        union.warnings.append(
            f'{spec.file}: its classes are not distributed as those of train800.txt and '
            'val200.txt together'
        )
