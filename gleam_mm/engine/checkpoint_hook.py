"""Checkpoints that survive a kill at any moment, and the adapter file beside them."""

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mmengine
import mmpretrain
import torch
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.model import is_model_wrapper
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import Tensor

from gleam_mm import checkpoint as checkpoints
from gleam_mm.fileio import remove_unfinished, write_bytes
from gleam_mm.models import PETLClassifier
from gleam_mm.registry import HOOKS
from gleam_mm.version import __version__

ADAPTER = 'adapter.safetensors'
LAST = 'last_checkpoint'  # MMEngine's file with the path of the last checkpoint

# What the message hub remembers for this hook. MMEngine logs what begins with "val".
_VALIDATED = 'last_validated_iter'
_BEST_BEFORE = 'best_ckpts_before'


@HOOKS.register_module()
class AdapterCheckpointHook(CheckpointHook):
    """MMEngine's :class:`CheckpointHook`, safe against kills, that also exports the adapter.

    It takes the same arguments. At every moment the work directory has the last complete checkpoint
    and the best one: a file is replaced at once, and an old one removed only after the new one, and
    what refers to it, is on disk. Where a kill came between a checkpoint and the validation
    that follows it, a resumed run validates first, so that no best checkpoint is missed.

    With each checkpoint, a :class:`~gleam_mm.models.PETLClassifier` is exported to
    ``adapter.safetensors`` in the work directory: the tensors of its state dict (averaged ones with
    an ``EMAHook``), and as metadata the configs, class names, fingerprint of the backbone, metrics,
    epoch and versions. Metrics of a test that follows the training are added.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._trains = False
        self._exported: tuple[dict[str, Tensor], dict] | None = None  # waits for its metrics
        self._metrics: dict[str, dict] = {}

    def before_train(self, runner: Runner) -> None:
        """Clears what a killed run has left, and makes up for a validation that it missed."""
        super().before_train(runner)
        self._trains = True
        if runner.param_schedulers is None:
            self.save_param_scheduler = False  # else MMEngine warns with every checkpoint
        if is_main_process():
            for folder in {Path(self.out_dir), Path(runner.work_dir)}:
                remove_unfinished(folder)
            best = self._best_paths().values()
            for path in runner.message_hub.runtime_info.get(_BEST_BEFORE, ()):
                if path not in best:
                    self._remove(path)
        done = _done(runner)
        if done and _validates(runner, done) and not _validated(runner):
            runner.logger.info(f'Validating {runner.epoch} epochs, which was interrupted')
            runner.val_loop.run()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Takes the tensors for the adapter, after an ``EMAHook`` has put in the averaged ones."""
        if isinstance(_model(runner), PETLClassifier):
            tensors = {
                name: tensor.detach().cpu().clone()
                for name, tensor in checkpoint['state_dict'].items()
                if name != checkpoints.FINGERPRINT
            }
            progress = {key: checkpoint['meta'][key] for key in ('epoch', 'iter')}
            metadata = adapter_metadata(runner, runner.train_dataloader.dataset)
            self._exported = tensors, metadata | progress

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Keeps the best checkpoint, and exports the adapter with the metrics."""
        if not self._trains:
            return
        runner.message_hub.update_info(_VALIDATED, runner.iter)
        self._metrics = {'val': dict(metrics or {})}
        super().after_val_epoch(runner, metrics or {})
        self._export(runner)

    def after_train(self, runner: Runner) -> None:
        """Publishes checkpoints as in MMEngine; no adapter waits for a validation any more."""
        super().after_train(runner)
        self._export(runner)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Adds the metrics of a test that follows the training to the adapter."""
        path = Path(runner.work_dir) / ADAPTER
        if self._trains and is_main_process() and path.is_file():
            tensors, metadata = checkpoints.read_adapter(path)
            metadata['metrics']['test'] = dict(metrics or {})
            checkpoints.save_adapter(path, tensors, metadata)

    def _save_checkpoint(self, runner: Runner) -> None:
        self._metrics = {}
        super()._save_checkpoint(runner)
        if not _validates(runner, _done(runner) + 1):  # the step that ends now is not counted yet
            self._export(runner)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        """Saves a checkpoint, then says that it is the last, then removes outdated ones."""
        outdated = []
        if self.max_keep_ckpts > 0:
            if step not in self.keep_ckpt_ids:
                if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                    outdated.append(self.keep_ckpt_ids.popleft())
                self.keep_ckpt_ids.append(step)
            # A run that is killed below and resumed removes the outdated ones at its start.
            runner.message_hub.update_info('keep_ckpt_ids', [*outdated, *self.keep_ckpt_ids])
        filename = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, filename)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            filename,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            write_bytes(Path(runner.work_dir) / LAST, self.last_ckpt.encode())
            for old in outdated:
                name = self.filename_tmpl.format(old)
                self._remove(self.file_backend.join_path(self.out_dir, name))

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, float]) -> None:
        """Saves a new best checkpoint, then the last one that names it, then removes the old."""
        before = self._best_paths()
        runner.message_hub.update_info(_BEST_BEFORE, list(before.values()))
        self._set_best_paths(dict.fromkeys(before))  # so that nothing is removed yet
        try:
            super()._save_best_checkpoint(runner, metrics)
        finally:
            after = self._best_paths()
            self._set_best_paths(before | after)
        if is_main_process():
            for key, path in before.items():
                if after.get(key, path) != path:
                    self._remove(path)

    def _best_paths(self) -> dict[str, str]:
        """The best checkpoints so far, by the metric that they are best in."""
        if not self.save_best:
            return {}
        if hasattr(self, 'best_ckpt_path_dict'):
            paths = self.best_ckpt_path_dict
        else:
            paths = {'': self.best_ckpt_path}
        return {key: path for key, path in paths.items() if path is not None}

    def _set_best_paths(self, paths: Mapping[str, str | None]) -> None:
        if hasattr(self, 'best_ckpt_path_dict'):
            self.best_ckpt_path_dict.update(paths)
        elif paths:
            self.best_ckpt_path = paths['']

    def _remove(self, path: str) -> None:
        if self.file_backend.isfile(path):
            self.file_backend.remove(path)
        elif self.file_backend.isdir(path):  # as DeepSpeed saves
            self.file_backend.rmtree(path)

    def _export(self, runner: Runner) -> None:
        """Writes what the last checkpoint held as the adapter. Other processes have nothing."""
        if self._exported is not None:
            tensors, metadata = self._exported
            metadata['metrics'] = self._metrics
            checkpoints.save_adapter(Path(runner.work_dir) / ADAPTER, tensors, metadata)
            self._exported = None


def adapter_metadata(runner: Runner, dataset: Any) -> dict[str, Any]:
    """What an adapter file says about itself, but for metrics.

    Args:
        runner: The runner, with a :class:`~gleam_mm.models.PETLClassifier`.
        dataset: The dataset that knows the names of the classes.
    """
    model = _model(runner)
    metainfo = getattr(dataset, 'metainfo', None) or {}
    classes = metainfo.get('classes')
    return {
        **model.description,
        'classes': list(classes) if isinstance(classes, Sequence) else None,
        'backbone_fingerprint': model.backbone_fingerprint(),
        'versions': {
            'gleam_mm': __version__,
            'torch': torch.__version__,
            'mmengine': mmengine.__version__,
            'mmpretrain': mmpretrain.__version__,
        },
    }


def find_resumable(work_dir: str | Path) -> Path | None:
    """Finds the newest checkpoint from which training can go on.

    Warns of each checkpoint that had to be passed over, and why.

    Args:
        work_dir: The work directory of the interrupted run.

    Returns:
        The checkpoint that ``last_checkpoint`` names or, where it cannot be loaded, the one with
        the highest number that can. None where there is none.
    """
    for path in _candidates(Path(work_dir)):
        try:
            content = checkpoints.load_from_local(str(path), map_location='cpu')
        except checkpoints.CheckpointError as error:
            warnings.warn(f'cannot resume from {error}', stacklevel=2)
            continue
        if {'epoch', 'iter'} <= content.get('meta', {}).keys() and 'message_hub' in content:
            return path
    return None


def _candidates(work_dir: Path) -> list[Path]:
    """Checkpoints of a work directory but the best ones, which lack the optimizer's state."""
    candidates = []
    folders = [work_dir]
    pointer = work_dir / LAST
    if pointer.is_file():
        last = Path(pointer.read_text().strip())
        # The work directory may have been moved since.
        candidates = [path for path in (last, work_dir / last.name) if path.is_file()][:1]
        folders += [path.parent for path in candidates if path.parent != work_dir]
    others = {path for folder in folders for path in folder.glob('*.pth')}
    others = {path for path in others if not path.name.startswith(('best_', '.'))}
    return candidates + sorted(others - set(candidates), key=_number, reverse=True)


def _number(path: Path) -> tuple[list[int], str]:
    """Sorts ``epoch_10.pth`` behind ``epoch_9.pth``."""
    return [int(digits) for digits in re.findall(r'\d+', path.name)], path.name


def _done(runner: Runner) -> int:
    """How many epochs, or in a loop over iterations how many of these, are done."""
    return runner.epoch if isinstance(runner.train_loop, EpochBasedTrainLoop) else runner.iter


def _validates(runner: Runner, done: int) -> bool:
    """Whether a validation follows after so many epochs or iterations, as the loops decide it."""
    loop = runner.train_loop
    if runner.val_loop is None or done < loop.val_begin:
        return False
    epochs = isinstance(loop, EpochBasedTrainLoop)
    return done % loop.val_interval == 0 or done == (loop.max_epochs if epochs else loop.max_iters)


def _validated(runner: Runner) -> bool:
    return runner.message_hub.runtime_info.get(_VALIDATED) == runner.iter


def _model(runner: Runner) -> torch.nn.Module:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model
