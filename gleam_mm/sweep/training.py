"""One training of a sweep, in this process."""

import gc
import json
import math
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from mmengine.utils import ManagerMixin
from mmengine.visualization import Visualizer
from torch import nn

from gleam_mm.checkpoint import ADAPTER, fingerprint
from gleam_mm.config import recipes
from gleam_mm.engine import checks, launch
from gleam_mm.engine.dist import unwrapped
from gleam_mm.engine.metrics import plain_metrics
from gleam_mm.engine.resume import LAST
from gleam_mm.fileio import write_bytes
from gleam_mm.models import params
from gleam_mm.sweep import protocol
from gleam_mm.sweep.plan import SELECT, Job, Sweep

METRIC = 'accuracy/top1'
MARK = 'sweep.json'  # says which study's training a folder holds
_REMEMBERED = 'sweep'  # what checkpoints remember for the hook


class Outcome(NamedTuple):
    """What a training came to; see :class:`~gleam_mm.sweep.results.Result`."""

    accuracy: float
    parameters: int
    seconds: float
    curve: list[dict]


def make_config(sweep: Sweep, job: Job) -> tuple[Config, protocol.Splits]:
    """The whole config of a job, and the names of its splits.

    Raises:
        RecipeError: There is no such recipe.
        ValueError: Its datasets do not have the protocol's splits.
    """
    cfg = recipes.load(sweep.recipe(job.method, job.dataset), sweep.config_options(job))
    return cfg, protocol.prepare(cfg, job.phase, job.seed)


def train(
    sweep: Sweep,
    job: Job,
    folder: Path,
    study_id: str,
    on_iteration: Callable[[int, int], None],
    on_backbone: Callable[[str], None] = lambda fingerprint: None,
) -> Outcome:
    """Trains a job, or goes on with it where its folder has a checkpoint of the same study.

    What is left in the folder: the config, the log, and after a final training the adapter.

    Args:
        sweep: The settings.
        job: What to train.
        folder: Where to write.
        study_id: What tells the study from others that had the same name.
        on_iteration: Called after every iteration with the epoch, from 1, and how many there are.
            What it raises ends the training.
        on_backbone: Called before the first iteration with the fingerprint of the weights that the
            backbone had before the training. What it raises ends the training.

    Returns:
        The accuracy at the last epoch: on the validation split in the select phase, else on test.
    """
    cfg, splits = make_config(sweep, job)
    cfg.work_dir = str(folder)
    # MMEngine keeps loggers and the like by this name, for as long as the process lives.
    cfg.experiment_name = f'{Path(cfg.filename).stem}_{uuid.uuid4().hex[:12]}'
    if job.phase == SELECT and 'checkpoint' in cfg.get('default_hooks', {}):
        cfg.default_hooks.checkpoint.save_best = None  # the last epoch counts
    launch.set_dataloader_defaults(cfg)
    checks.check_schedule(cfg)
    _own(folder, {'study': study_id, 'job': job.key})
    launch.set_resume(cfg, 'auto')
    hook = _JobHook(on_iteration, on_backbone)
    try:
        with protocol.only(*splits.training(job.phase)):
            runner = launch.build_runner(cfg, 'none')
            runner.register_hook(hook, priority='NORMAL')
            runner.train()
            seconds = hook.seconds()
        metrics = hook.validated
        if job.phase != SELECT:
            with protocol.only(splits.test):
                metrics = runner.test()
        if METRIC not in metrics:
            raise ValueError(
                f'{cfg.filename}: the evaluation gave {", ".join(metrics) or "nothing"}; a sweep '
                f"needs {METRIC}, which dict(type='Accuracy', topk=1) computes"
            )
        parameters = params.count(runner.model).trainable
    finally:
        runner = None
        _clear(cfg.experiment_name)
    _clean(folder, job)
    return Outcome(metrics[METRIC], parameters, seconds, hook.curve)


class _JobHook(Hook):
    """Keeps the curve and the time across interruptions, and lets the worker look in.

    After the hooks that log and before the one that saves checkpoints, which then hold the curve.
    """

    def __init__(
        self, on_iteration: Callable[[int, int], None], on_backbone: Callable[[str], None]
    ) -> None:
        self._on_iteration, self._on_backbone = on_iteration, on_backbone
        self._before = 0.0
        self._start = time.monotonic()
        self.curve: list[dict] = []
        self.validated: dict[str, float] = {}

    def seconds(self) -> float:
        """How long the training has taken so far."""
        return self._before + time.monotonic() - self._start

    def before_train(self, runner: Runner) -> None:
        remembered = runner.message_hub.runtime_info.get(_REMEMBERED, {})
        self.curve = list(remembered.get('curve', []))
        self.validated = dict(remembered.get('validated', {}))
        self._before = remembered.get('seconds', 0.0)
        # Some methods train the backbone itself, so that its weights tell nothing when resumed.
        self._backbone = remembered.get('backbone') or _fingerprint(runner.model)
        self._on_backbone(self._backbone)
        self._start = time.monotonic()

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Mapping[str, Any] | None = None,
    ) -> None:
        self._on_iteration(runner.epoch + 1, runner.max_epochs)

    def after_train_epoch(self, runner: Runner) -> None:
        scalars = runner.message_hub.log_scalars
        loss = float(scalars['train/loss'].mean(len(runner.train_dataloader)))
        rate = next(iter(runner.optim_wrapper.get_lr().values()))[0]
        self.curve.append(
            {
                'epoch': runner.epoch + 1,
                'loss': loss if math.isfinite(loss) else None,
                'lr': float(rate),
            }
        )
        self._remember(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self.validated = plain_metrics(metrics or {})
        if self.curve and METRIC in self.validated:
            self.curve[-1]['accuracy'] = float(self.validated[METRIC])
        self._remember(runner)

    def _remember(self, runner: Runner) -> None:
        remembered = {
            'curve': self.curve,
            'validated': self.validated,  # a training that is whole is not validated again
            'seconds': self.seconds(),
            'backbone': self._backbone,
        }
        runner.message_hub.update_info(_REMEMBERED, remembered)


def _fingerprint(model: nn.Module) -> str:
    return fingerprint(unwrapped(model).backbone.state_dict())


def _own(folder: Path, mark: dict) -> None:
    """Marks a folder as a study's; checkpoints of another one must not be resumed."""
    file = folder / MARK
    text = json.dumps(mark)
    if not file.is_file() or file.read_text() != text:
        _remove_checkpoints(folder)
        write_bytes(file, text.encode())


def _clean(folder: Path, job: Job) -> None:
    """Removes what nobody needs after the end: a grid's checkpoints would fill a disk."""
    _remove_checkpoints(folder)
    if job.phase == SELECT:
        (folder / ADAPTER).unlink(missing_ok=True)


def _remove_checkpoints(folder: Path) -> None:
    for path in [*folder.glob('*.pth'), folder / LAST]:
        path.unlink(missing_ok=True)


def _clear(experiment: str) -> None:
    """Forgets what MMEngine keeps of an experiment: log files stay open otherwise.

    It is kept by each class for itself, and by the name with the time of the start behind it.
    """
    for kind in _heirs(ManagerMixin):
        kept_by_name: dict[str, ManagerMixin] = kind._instance_dict
        for name in [name for name in kept_by_name if name.startswith(experiment)]:
            kept = kept_by_name.pop(name)
            if isinstance(kept, MMLogger):
                for handler in list(kept.handlers):
                    handler.close()
                    kept.removeHandler(handler)
            elif isinstance(kept, Visualizer):
                kept.close()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _heirs(kind: type) -> Iterator[type]:
    for heir in kind.__subclasses__():
        yield heir
        yield from _heirs(heir)
