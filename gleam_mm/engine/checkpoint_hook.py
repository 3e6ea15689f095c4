"""Checkpoints that survive a kill at any moment, and the adapter file beside them."""

import logging
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import torch
from mmengine.dist import all_gather, get_rank, get_world_size, is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import Tensor

from gleam_mm import checkpoint as checkpoints
from gleam_mm.engine.data import TRAINING_DATA, places_of
from gleam_mm.engine.dist import unwrapped
from gleam_mm.engine.metrics import is_number, plain_metrics, rule_of
from gleam_mm.engine.monitored import names_given, numbers_in, require
from gleam_mm.engine.resume import LAST
from gleam_mm.engine.schedule import EPOCH_LENGTH
from gleam_mm.errors import UserError
from gleam_mm.fileio import remove_unfinished, write_bytes
from gleam_mm.inference.saving import metadata_of
from gleam_mm.interrupts import uninterrupted
from gleam_mm.models import PETLClassifier
from gleam_mm.registry import HOOKS

# What the message hub remembers for this hook. MMEngine logs what begins with "val".
_VALIDATED = 'last_validated'
_METRICS = 'last_metrics'  # of that validation
_BEST_BEFORE = 'best_ckpts_before'
_GRADIENTS = 'accumulated_gradients'  # the key in a checkpoint


# By both names, so that a config of ours writes the adapter under MMEngine's runner as well, which
# MMPretrain's tools/train.py builds.
@HOOKS.register_module(name=['AdapterCheckpointHook', 'CheckpointHook'])
class AdapterCheckpointHook(CheckpointHook):
    """MMEngine's :class:`CheckpointHook`, safe against kills, that also exports the adapter.

    It takes the same arguments. At every moment the work directory has the last complete checkpoint
    and the best one: a file is replaced at once, and an old one removed only after the new one, and
    what refers to it, is on disk. A checkpoint is written before the validation that follows it and
    once more after it: where a kill came in between, a resumed run validates first, so that no best
    checkpoint is missed. Where gradients are being accumulated, a checkpoint holds them.

    With each checkpoint, a :class:`~gleam_mm.models.PETLClassifier` is exported to
    ``adapter.safetensors`` in the work directory: the tensors of its state dict (averaged ones with
    an ``EMAHook``), and as metadata the configs, class names, fingerprint of the backbone, metrics,
    epoch and versions. It is written before the checkpoint that ends the step. At the end of the
    training it is that of the final weights, whatever the file was before; metrics of a test that
    follows are added.

    Without ``rule``, whether more or less of a metric is better is told by its name.
    """

    _default_greater_keys = (
        *CheckpointHook._default_greater_keys,
        *('recall', 'f1', 'kappa', 'map', 'iou', 'dice', 'r2', 'corr'),
    )
    _default_less_keys = (
        *CheckpointHook._default_less_keys,
        *('error', 'mae', 'mse', 'nll', 'ece', 'brier', 'perplexity', 'distance'),
    )

    rules: list[str | None]  # of the metrics that are kept the best of

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._trains = False
        self._exported: int | None = None  # the iteration whose adapter is written
        self._gradients: dict[str, Tensor] = {}  # being accumulated

    def before_train(self, runner: Runner) -> None:
        """Clears what a killed run has left, and makes up for a validation that it missed."""
        self._trains = True
        if runner._resume and runner._load_from is not None:
            self.last_ckpt = runner._load_from
            if is_main_process():  # a kill may have come before it was said to be the last
                write_bytes(Path(runner.work_dir) / LAST, self.last_ckpt.encode())
        if self.save_best and runner.val_loop is not None:
            self._require(names_given(runner.val_evaluator))
        super().before_train(runner)  # which removes outdated ones
        self._set_best_paths({key: self._here(path) for key, path in self._best_paths().items()})
        loop = runner.train_loop
        if isinstance(loop, EpochBasedTrainLoop):
            runner.message_hub.update_info(EPOCH_LENGTH, len(loop.dataloader))
        places = places_of(runner.train_dataloader.dataset)
        runner.message_hub.update_info(TRAINING_DATA, places)
        parameters = dict(unwrapped(runner.model).named_parameters())
        for name, gradients in self._gradients.items():
            same = len(gradients) == get_world_size()
            own = gradients[get_rank()] if same else gradients.mean(0)
            parameters[name].grad = own.to(parameters[name].device)
        if runner.param_schedulers is None:
            self.save_param_scheduler = False  # else MMEngine warns with every checkpoint
        if is_main_process():
            for folder in {Path(self.out_dir), Path(runner.work_dir)}:
                remove_unfinished(folder)
            best = self._best_paths().values()
            before = runner.message_hub.runtime_info.get(_BEST_BEFORE, ())
            for path in map(self._here, before):
                if path not in best:
                    self._remove(path)
        done = _done(runner)
        if done and _validates(runner, done) and not _validated(runner, done):
            unit = 'epochs' if isinstance(loop, EpochBasedTrainLoop) else 'iterations'
            runner.logger.info(f'Validating {done} {unit}, which was interrupted')
            runner.val_loop.run()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Takes the gradients that a resumed run goes on accumulating."""
        self._gradients = checkpoint.pop(_GRADIENTS, {}) if runner._resume else {}

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Exports the adapter, after an ``EMAHook`` has put in the averaged weights."""
        if self._gradients and 'optimizer' in checkpoint:
            checkpoint[_GRADIENTS] = self._gradients
        if not isinstance(unwrapped(runner.model), PETLClassifier):
            return
        progress = {key: checkpoint['meta'][key] for key in ('epoch', 'iter')}
        epochs = isinstance(runner.train_loop, EpochBasedTrainLoop)
        done = progress['epoch' if epochs else 'iter']
        waits = _validates(runner, done) and not _validated(runner, done)
        if waits or self._exported == progress['iter']:
            return
        tensors = {
            name: tensor
            for name, tensor in checkpoint['state_dict'].items()
            if name != checkpoints.FINGERPRINT
        }
        metadata = adapter_metadata(runner, runner.train_dataloader.dataset)
        validated = runner.message_hub.runtime_info.get(_METRICS, {})  # earlier versions kept none
        metrics = {'val': validated} if _validated(runner, done) else {}
        metadata |= progress | {'metrics': metrics}
        checkpoints.save_adapter(Path(runner.work_dir) / checkpoints.ADAPTER, tensors, metadata)
        self._exported = progress['iter']

    def after_train(self, runner: Runner) -> None:
        """Exports the adapter of the final weights, where no checkpoint of this run has done so.

        A run that had nothing left to train may have found that of the best weights.
        """
        super().after_train(runner)
        if self._exported != runner.iter:
            progress = {'epoch': runner.epoch, 'iter': runner.iter}
            weights = unwrapped(runner.model).state_dict()
            runner.call_hook(
                'before_save_checkpoint', checkpoint={'meta': progress, 'state_dict': weights}
            )

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Keeps the best checkpoint, and writes the last one again, which is validated now.

        Raises:
            UserError: There is no number of the name that ``save_best`` has.
        """
        if self._trains:
            self._require(numbers_in(metrics or {}))
            with uninterrupted():
                self._keep(runner, metrics or {})

    def _require(self, given: set[str] | None) -> None:
        for name in self.key_indicators if self.save_best else ():
            if name != 'auto':
                require(name, given, 'default_hooks.checkpoint.save_best')

    def load_best(self, runner: Runner) -> Path:
        """Puts the best weights by validation in the place of the last, and into the adapter file.

        Averaged weights, too, are then those of the best checkpoint.

        Args:
            runner: The runner, after its training.

        Returns:
            The best checkpoint; of several metrics that of the first.

        Raises:
            UserError: There is none.
        """
        best = next(iter(self._best_paths().items()), None)
        if best is None or not Path(best[1]).is_file():
            raise UserError(
                f'--best: there is no best checkpoint in {self.out_dir}: nothing was validated'
            )
        key, path = best[0] or self.key_indicators[0], Path(best[1])
        runner._resume = False  # so that an EMAHook takes them for the averaged ones as well
        runner.load_checkpoint(str(path))
        if is_main_process() and isinstance(unwrapped(runner.model), PETLClassifier):
            content = checkpoints.load_from_local(str(path), 'cpu')  # with averaged weights, if any
            info = content['message_hub']['runtime_info']
            score = info.get('best_score', info.get(f'best_score_{key}'))
            tensors = dict(content['state_dict'])
            del tensors[checkpoints.FINGERPRINT]
            metadata = adapter_metadata(runner, runner.train_dataloader.dataset)
            metadata |= {name: content['meta'][name] for name in ('epoch', 'iter')}
            metadata['metrics'] = {'val': plain_metrics({key: score})}
            checkpoints.save_adapter(Path(runner.work_dir) / checkpoints.ADAPTER, tensors, metadata)
        return path

    def _keep(self, runner: Runner, metrics: dict[str, Any]) -> None:
        done = _done(runner)
        runner.message_hub.update_info(_VALIDATED, done)
        runner.message_hub.update_info(_METRICS, plain_metrics(metrics))
        self._exported = None
        numbers = {name: value for name, value in metrics.items() if is_number(value)}
        before, last = self._best_paths(), self.last_ckpt
        runner.message_hub.update_info(_BEST_BEFORE, list(before.values()))
        self._set_best_paths(dict.fromkeys(before))  # so that nothing is removed yet
        self.last_ckpt = None  # nor the last checkpoint written yet
        try:
            super().after_val_epoch(runner, numbers)
        finally:
            after = self._best_paths()
            self._set_best_paths(before | after)
            self.last_ckpt = last
        step = runner.epoch if self.by_epoch else runner.iter
        if last is not None and (after or last == self._path(step)):
            meta = {'epoch': runner.epoch, 'iter': runner.iter}
            self._save_checkpoint_with_step(runner, step, meta)
        if is_main_process():
            for key, path in before.items():
                if after.get(key, path) != path:
                    self._remove(path)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Adds the metrics of a test that follows the training to the adapter."""
        path = Path(runner.work_dir) / checkpoints.ADAPTER
        if self._trains and is_main_process() and path.is_file():
            tensors, metadata = checkpoints.read_adapter(path)
            metadata['metrics']['test'] = plain_metrics(metrics or {})
            checkpoints.save_adapter(path, tensors, metadata)

    def _path(self, step: int) -> str:
        return self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(step))

    def _in_own_folder(self, file: str) -> str:
        return self.file_backend.join_path(self.out_dir, PurePath(file).name)

    def _save_checkpoint(self, runner: Runner) -> None:
        with uninterrupted():
            super()._save_checkpoint(runner)

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
        self.last_ckpt = self._path(step)
        self._gradients = _accumulated(runner)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            self.filename_tmpl.format(step),
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
                self._remove(self._path(old))

    def _init_rule(self, rules: list[str | None], key_indicators: list[str]) -> None:
        """Decides whether more or less is better; of a metric that nothing is known of, more."""
        if len(rules) == 1:
            rules = rules * len(key_indicators)
        decided: list[str | None] = []
        for rule, key in zip(rules, key_indicators, strict=True):
            try:
                super()._init_rule([rule or rule_of(key)], [key])
            except ValueError:
                print_log(
                    f'Whether more of {key} is better is not known: the greatest is kept as the '
                    "best. Set default_hooks.checkpoint.rule to 'greater' or 'less'",
                    'current',
                    logging.WARNING,
                )
                super()._init_rule(['greater'], [key])
            decided += self.rules
        self.rules, self.key_indicators = decided, key_indicators

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

    def _here(self, path: str) -> str:
        """Where a checkpoint of the run that is resumed is by now.

        Its folder may have been moved or copied since, and what is in a copy is of the copy.
        """
        here = self._in_own_folder(path)
        return here if self.file_backend.exists(here) else path

    def _remove(self, path: str) -> None:
        """Removes a checkpoint, unless it lies in a folder that is not this run's."""
        if path != self._in_own_folder(path):
            return
        if self.file_backend.isfile(path):
            self.file_backend.remove(path)
        elif self.file_backend.isdir(path):  # as DeepSpeed saves
            self.file_backend.rmtree(path)


DEFAULT: dict[str, Any] = dict(
    type=AdapterCheckpointHook, interval=1, max_keep_ckpts=1, save_best='auto'
)
"""The checkpoint hook of a config that has none, which is that of our default runtime."""


def adapter_metadata(runner: Runner, dataset: Any) -> dict[str, Any]:
    """What an adapter file says about itself, but for metrics.

    Args:
        runner: The runner, with a :class:`~gleam_mm.models.PETLClassifier`.
        dataset: The dataset that knows the names of the classes.
    """
    model = unwrapped(runner.model)
    metainfo = getattr(dataset, 'metainfo', None) or {}
    classes = metainfo.get('classes')
    if classes is None and model.teacher is not None:  # the images have no labels
        classes = model.teacher.classes
    return metadata_of(model, runner.cfg, classes)


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


def _validated(runner: Runner, done: int) -> bool:
    return runner.message_hub.runtime_info.get(_VALIDATED) == done


def _accumulated(runner: Runner) -> dict[str, Tensor]:
    """Gradients that wait for others before a step of the optimizer, by the parameter's name.

    Each is stacked with those of the other processes, shape (processes, *parameter): they are
    averaged with the last of the accumulated batches, and sums in another order round otherwise.
    Called by all processes.
    """
    wrapper = runner.optim_wrapper
    if not isinstance(wrapper, OptimWrapper) or wrapper.should_update():
        return {}
    return {
        name: torch.stack(all_gather(parameter.grad)).cpu()
        for name, parameter in unwrapped(runner.model).named_parameters()
        if parameter.grad is not None
    }
