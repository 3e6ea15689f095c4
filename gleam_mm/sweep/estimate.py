"""How long a sweep will take, from a few steps of each of its methods on this machine."""

import contextlib
import gc
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.device import get_device
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner
from rich.console import Group, RenderableType
from rich.progress import track
from rich.table import Table
from rich.text import Text
from torch.utils.data import DataLoader

from gleam_mm.engine import fill_num_classes, launch
from gleam_mm.engine.console_hook import on_terminal
from gleam_mm.errors import SETUP_ERRORS, UserError, describe
from gleam_mm.output.tables import clock
from gleam_mm.registry import MODELS, scope_of
from gleam_mm.sweep import protocol, training
from gleam_mm.sweep.plan import OPTION_PREFIX, SELECT, Job, Sweep, option_key, options_text
from gleam_mm.sweep.supervise import threads

_WARM_UP = 2  # batches that are not timed: the first ones allocate memory, and fill caches
_FEWEST, _MOST, _SECONDS = 2, 20, 2.0  # batches that are timed, the fewer the longer they take

_LENGTH = 'train_cfg.'  # options that change how many iterations there are, but none of them
_SCHEDULE = 'param_scheduler'
_SCALED = (OPTION_PREFIX, 'optim_wrapper.')  # have rates, scales and probabilities


@dataclass(frozen=True)
class Estimate:
    """What the trainings of a method are expected to take.

    Attributes:
        method: Name of the method or variant.
        trainings: How many there are.
        seconds: Of all of them, one after another.
    """

    method: str
    trainings: int
    seconds: float


@dataclass(frozen=True)
class _Pace:
    """Seconds that parts of a method's trainings take: each start, iteration and judged image."""

    start: float
    iteration: float
    image: float


def estimate(sweep: Sweep, jobs: Iterable[Job], workers: int = 1) -> list[Estimate]:
    """Estimates what trainings take, by timing each method on the first dataset.

    Points of a grid that differ in what may change the cost, such as the batch size, are timed
    apart; those that differ only in rates, scales or the length of the training are not. A final
    training whose point is not chosen yet takes the mean over the points of its grid.

    Nothing is written, and the test split stays closed but for its size.

    Args:
        sweep: The settings.
        jobs: Those of its trainings that are to be run.
        workers: Processes that share this machine; steps are timed with the threads that each has.

    Returns:
        An estimate for every method that has something to run.

    Raises:
        UserError: A training cannot be set up; the message has its method.
    """
    by_method: dict[str, list[Job]] = {}
    for job in jobs:
        by_method.setdefault(job.method, []).append(job)
    sizes = _Sizes()
    found = []
    with _threads(workers):
        for method, own in track(
            by_method.items(), 'timing', transient=True, disable=not on_terminal()
        ):
            try:
                seconds = _seconds(sweep, own, sizes)
            except SETUP_ERRORS as error:
                raise UserError(f'{method}: {describe(error)}') from error
            found.append(Estimate(method, len(own), seconds))
    return found


def wall_seconds(estimates: Sequence[Estimate], workers: int) -> float:
    """How long it takes until all is done: no less than a training of the slowest method."""
    longest = max((row.seconds / row.trainings for row in estimates), default=0.0)
    return max(sum(row.seconds for row in estimates) / workers, longest)


def table(estimates: Sequence[Estimate], workers: int) -> RenderableType:
    """Estimates for a person: by method, then in all."""
    rows = Table('method', box=None)
    for name in ('trainings', 's each', 'total'):
        rows.add_column(name, justify='right')
    for row in estimates:
        each = f'{row.seconds / row.trainings:.1f}'
        rows.add_row(row.method, str(row.trainings), each, clock(row.seconds))
    trainings = sum(row.trainings for row in estimates)
    total = clock(sum(row.seconds for row in estimates))
    wall = clock(wall_seconds(estimates, workers))
    many = f'{workers} workers' if workers > 1 else '1 worker'
    return Group(
        rows, Text(f'{trainings} trainings: {total} in all, {wall} with {many}; an estimate')
    )


def _seconds(sweep: Sweep, jobs: Iterable[Job], sizes: '_Sizes') -> float:
    """How long trainings of one method take; each that costs the same is looked at once."""
    kinds: dict[str, Job] = {}
    numbers: Counter[str] = Counter()
    for job in jobs:
        points = [job.options] if job.options else sweep.points(job.method) or [{}]
        for point in points:
            kind = replace(job, seed=sweep.seeds[0], options=_costly(sweep, job.method, point))
            kinds[str(kind)] = kind
            numbers[str(kind)] += 1 / len(points)
    paces: dict[str, _Pace] = {}
    seconds = 0.0
    for name, kind in kinds.items():
        options = {key: kind.options[key] for key in kind.options if not key.startswith(_LENGTH)}
        timed = options_text(options)
        if timed not in paces:
            paces[timed] = _pace(sweep, kind.method, options)
        seconds += numbers[name] * sizes.seconds(paces[timed], sweep, kind)
    return seconds


def _costly(sweep: Sweep, method: str, point: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a point's options that may change how long a training takes.

    Not so what schedules rates, and of the method and its optimizer what has a fraction among the
    grid's values: that is a rate, a scale or a probability and no size.
    """
    costly = {}
    for name, value in point.items():
        key = option_key(name)
        fraction = any(isinstance(other, float) for other in sweep.grid[method][name])
        if not (key.startswith(_SCHEDULE) or (fraction and key.startswith(_SCALED))):
            costly[name] = value
    return costly


def _pace(sweep: Sweep, method: str, options: dict[str, Any]) -> _Pace:
    """Times a method with options on the first dataset as it is while options are chosen."""
    cfg, splits = training.make_config(
        sweep, Job(SELECT, method, sweep.datasets[0], sweep.seeds[0], options)
    )
    launch.set_dataloader_defaults(cfg)
    try:
        with scope_of(cfg), protocol.only(*splits.training(SELECT)):
            begin = time.perf_counter()
            fill_num_classes(cfg)
            if cfg.get('data_preprocessor') is not None:
                cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
            model = MODELS.build(cfg.model).to(get_device())
            optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
            loader, validation = map(_few, (cfg.train_dataloader, cfg.val_dataloader))
            start = time.perf_counter() - begin
            model.train()
            iteration = _timed(lambda batch: model.train_step(batch, optimizer), loader)
            model.eval()
            with torch.no_grad():
                batch = _timed(model.val_step, validation)
            return _Pace(start, iteration, batch * len(validation) / len(validation.dataset))
    finally:
        model = optimizer = loader = validation = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _few(dataloader: ConfigDict) -> DataLoader:
    """A loader of so few images that a dataset which keeps images has them after the warm-up."""
    whole = Runner.build_dataloader(dataloader, seed=0)
    if len(whole.dataset) <= _WARM_UP * dataloader.batch_size:
        return whole
    return Runner.build_dataloader({**dataloader, 'num_batch_per_epoch': _WARM_UP}, seed=0)


def _timed(step: Callable[[Any], Any], loader: DataLoader) -> float:
    """Seconds that a step takes with what loading its batch adds."""
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    for batch in itertools.islice(batches, _WARM_UP):
        step(batch)
    begin, number = _now(), 0
    while number < _FEWEST or (number < _MOST and _now() - begin < _SECONDS):
        step(next(batches))
        number += 1
    return (_now() - begin) / number


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class _Sizes:
    """Numbers of batches and images of data loaders, each of which is built only once."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, int]] = {}

    def seconds(self, pace: _Pace, sweep: Sweep, job: Job) -> float:
        """How long a training takes at a pace."""
        cfg, splits = training.make_config(sweep, job)
        launch.set_dataloader_defaults(cfg)
        epochs = cfg.train_cfg.max_epochs
        with scope_of(cfg):
            with protocol.only(*splits.training(job.phase)):
                batches, _ = self._of(cfg.train_dataloader)
            judged = cfg.val_dataloader if job.phase == SELECT else cfg.test_dataloader
            with protocol.only(splits.validate if job.phase == SELECT else splits.test):
                _, images = self._of(judged)
        evaluations = _validations(cfg.train_cfg) if job.phase == SELECT else 1
        return pace.start + epochs * batches * pace.iteration + evaluations * images * pace.image

    def _of(self, dataloader: ConfigDict) -> tuple[int, int]:
        key = str(dataloader.to_dict())
        if key not in self._known:
            loader = Runner.build_dataloader(dataloader, seed=0)
            self._known[key] = len(loader), len(loader.dataset)
        return self._known[key]


def _validations(train_cfg: ConfigDict) -> int:
    """How often MMEngine's loop validates: at the last epoch in any case."""
    epochs, interval = train_cfg.max_epochs, train_cfg.get('val_interval', 1)
    first = train_cfg.get('val_begin', 1)
    return sum(epoch % interval == 0 or epoch == epochs for epoch in range(first, epochs + 1))


@contextlib.contextmanager
def _threads(workers: int) -> Iterator[None]:
    """Within it, PyTorch has the threads that each of so many workers would have."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads(workers))
    try:
        yield
    finally:
        torch.set_num_threads(before)
