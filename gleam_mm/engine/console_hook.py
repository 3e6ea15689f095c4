"""A console that a person can read: one progress bar on a terminal, plain lines elsewhere."""

import atexit
import logging
import os
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskProgressColumn, TextColumn
from rich.text import Text

from gleam_mm.engine.metrics import numbers_of
from gleam_mm.output.tables import clock
from gleam_mm.registry import HOOKS

# How MMEngine begins the messages that fill pages. They are in the log file.
_BULKY = (
    'Config:\n',
    'Hooks will be executed in the following order:',
    'paramwise_options -- ',
    'backbone feature_info[',
    '\n------------------------------------------------------------\nSystem environment:',
)
_REFRESH_SECONDS = 0.1
_PATIENCE_SECONDS = 20


def on_terminal() -> bool:
    """Whether this process talks to a person: standard output is a terminal, and rank 0."""
    return sys.stdout.isatty() and os.environ.get('TERM') != 'dumb' and get_rank() == 0


def route_log(logger: MMLogger) -> None:
    """Keeps the console readable; the log file gets everything.

    On a terminal the console shows warnings and errors only, since the progress bar tells the rest.
    Elsewhere it shows what MMEngine logs, but for the dumped config, environment and hooks.

    Args:
        logger: The runner's logger.
    """
    for handler in logger.handlers:
        if type(handler) is logging.StreamHandler and not any(
            isinstance(known, _ConsoleFilter) for known in handler.filters
        ):
            terminal = on_terminal()
            handler.addFilter(_ConsoleFilter(logging.WARNING if terminal else logging.DEBUG))
            if logger.log_file:
                logger.info(f'Config and environment are in {logger.log_file}')
            if terminal:
                handler.setStream(_CurrentStdout())
                print(f'log: {os.path.relpath(logger.log_file)}' if logger.log_file else 'no log')


class _ConsoleFilter(logging.Filter):
    def __init__(self, level: int) -> None:
        super().__init__()
        self.level = level

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= self.level and not record.getMessage().startswith(_BULKY)


class _CurrentStdout:
    """Whatever ``sys.stdout`` is at the moment: the progress bar replaces it to stay below."""

    def write(self, text: str) -> int:
        return sys.stdout.write(text)

    def flush(self) -> None:
        sys.stdout.flush()


class _TimeColumn(ProgressColumn):
    """The time that remains, and once finished the time that it took."""

    def render(self, task: Task) -> Text:
        if task.finished:
            return Text(f'in {clock(task.finished_time)}', style='progress.elapsed')
        return Text(f'ETA {clock(task.time_remaining)}', style='progress.remaining')


@HOOKS.register_module()
class ConsoleHook(Hook):
    """Shows one progress bar on a terminal: epoch, loss, validation accuracy and ETA.

    Where standard output is no terminal, there is no bar, and the log has MMEngine's plain lines.
    A first step that takes long is told anywhere: nothing else would show that it runs.
    """

    priority = 'VERY_LOW'  # after the hooks that compute what is shown

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._status: dict[str, str] = {}
        self._refreshed = 0.0
        self._waiting: threading.Timer | None = None

    def before_run(self, runner: Runner) -> None:
        """Routes the log of runners that have not done so."""
        route_log(runner.logger)

    def before_train(self, runner: Runner) -> None:
        """Starts the bar."""
        self._status = {}
        self._start('training', runner.max_iters, runner.iter)
        self._waiting = threading.Timer(_PATIENCE_SECONDS, _tell_that_it_runs, [runner])
        self._waiting.daemon = True
        self._waiting.start()

    def before_train_epoch(self, runner: Runner) -> None:
        """Names the epoch."""
        self._describe(_position(runner, runner.train_loop))

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Advances the bar and shows the loss, averaged over the last ten iterations."""
        self._stop_waiting()
        if self._progress is None:
            return
        losses = runner.message_hub.log_scalars.get('train/loss')
        if losses is not None:
            self._status['loss'] = f'loss {losses.mean(10):.4f}'
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            self._describe(_position(runner, runner.train_loop))
        self._advance(runner.iter + 1)

    def before_val_epoch(self, runner: Runner) -> None:
        """Says that it validates, since the bar stands still meanwhile."""
        self._describe('validating')

    def after_val_epoch(self, runner: Runner, metrics: Mapping[str, float] | None = None) -> None:
        """Shows the validation accuracy."""
        if self._progress is None:
            return
        self._status['val'] = f'val {headline(metrics or {})}'
        self._describe(_position(runner, runner.train_loop))

    def after_train(self, runner: Runner) -> None:
        """Leaves the finished bar on the terminal."""
        self._stop_waiting()
        self._stop()

    def before_test_epoch(self, runner: Runner) -> None:
        """Starts a bar for the test."""
        self._status = {}
        self._start('testing', len(runner.test_dataloader), 0)

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Advances the bar."""
        self._advance(batch_idx + 1)

    def after_test_epoch(self, runner: Runner, metrics: Mapping[str, float] | None = None) -> None:
        """Shows the test accuracy, and leaves the bar on the terminal."""
        if self._progress is not None:
            self._status['test'] = headline(metrics or {})
            self._advance(len(runner.test_dataloader))
        self._stop()

    def after_everything(self, runner: Runner) -> None:
        """Ends a bar that an error or Ctrl-C has stopped, before anything else is printed."""
        self._stop_waiting()
        self._stop()

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _start(self, description: str, total: int, completed: int) -> None:
        self._stop()
        if not on_terminal():
            return
        # No thread refreshes the bar: data loaders fork, and would inherit its lock.
        self._progress = Progress(
            TextColumn('{task.description}'),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TextColumn('{task.fields[status]}'),
            _TimeColumn(),
            console=Console(),
            auto_refresh=False,
            expand=True,
        )
        self._progress.add_task(description, total=total, completed=completed, status='')
        self._progress.start()
        atexit.register(self._stop)  # other runners may not call after_everything

    def _describe(self, description: str) -> None:
        self._update(description=description, force=True)

    def _advance(self, completed: int) -> None:
        if self._progress is not None:
            total = self._progress.tasks[0].total
            self._update(completed=completed, force=completed == total)

    def _update(self, force: bool, **fields: Any) -> None:
        if self._progress is None:
            return
        self._progress.update(
            self._progress.task_ids[0], status='  '.join(self._status.values()), **fields
        )
        now = time.monotonic()
        if force or now - self._refreshed >= _REFRESH_SECONDS:
            self._progress.refresh()
            self._refreshed = now

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
            atexit.unregister(self._stop)


def _tell_that_it_runs(runner: Runner) -> None:
    batch = getattr(runner.train_dataloader, 'batch_size', None)
    images = f', for {batch} images' if batch else ''
    runner.logger.warning(
        f'The first step has taken {_PATIENCE_SECONDS} seconds so far and goes on{images}. If it '
        'never ends: fewer images (train_dataloader.batch_size), or smaller ones'
    )


def headline(metrics: Mapping[str, Any]) -> str:
    """The one metric to show of several: the top-1 accuracy, or else the first one by its name."""
    numbers = numbers_of(metrics)
    if 'accuracy/top1' in numbers:
        return f'{numbers["accuracy/top1"]:.2f} %'
    return next((f'{name} {value:.4g}' for name, value in numbers.items()), 'no metric')


def _position(runner: Runner, loop: BaseLoop) -> str:
    if isinstance(loop, EpochBasedTrainLoop):
        width = len(str(loop.max_epochs))
        return f'epoch {min(runner.epoch + 1, loop.max_epochs):>{width}}/{loop.max_epochs}'
    return f'iteration {min(runner.iter + 1, loop.max_iters)}/{loop.max_iters}'
