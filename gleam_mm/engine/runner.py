"""MMEngine's runner with a readable console and errors that a user can act on."""

import re
from pathlib import Path
from typing import Any, BinaryIO

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper
from mmengine.runner import BaseLoop, Runner
from torch import nn

from gleam_mm import errors
from gleam_mm.checkpoint import CheckpointError, classes_of_meta
from gleam_mm.config.scopes import with_scopes
from gleam_mm.datasets import UnreadableImageError
from gleam_mm.engine import checkpoint_hook, data, schedule
from gleam_mm.engine.calibrate_hook import CalibrateHook
from gleam_mm.engine.classes import CheckClassesHook, Names
from gleam_mm.engine.console_hook import ConsoleHook, route_log
from gleam_mm.engine.dist import is_sharded, unwrapped
from gleam_mm.engine.loops import EpochTrainLoop, IterTrainLoop
from gleam_mm.engine.order import EpochSeedHook, stop_workers
from gleam_mm.fileio import claim
from gleam_mm.models import CudaGraphs, use_cuda_graphs
from gleam_mm.petl import PETLMethod
from gleam_mm.registry import MODEL_WRAPPERS, RUNNERS

_NEEDED: dict[str, dict[str, Any]] = {
    'checkpoint': checkpoint_hook.DEFAULT,
    'epoch_seed': dict(type=EpochSeedHook),
    'classes': dict(type=CheckClassesHook),
    'calibrate': dict(type=CalibrateHook),
    'console': dict(type=ConsoleHook),
}
"""The hooks of our default runtime that decide what a training is, by their names there."""

_DROPPED = ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint')
"""MMEngine's default hooks: None drops them, and is an error for any other."""

_WORKER_DIED = re.compile(r'DataLoader worker \(pid.*(exited unexpectedly|is killed by signal)')


@RUNNERS.register_module()
class PETLRunner(Runner):
    """The runner of ``configs/_base_/default_runtime.py``.

    It differs from MMEngine's in some ways. What fills pages goes to the log file only. Until the
    first iteration, whatever does not fit (classes, checkpoint, data) is a
    :class:`~gleam_mm.errors.UserError`, and after it an image that cannot be read. Training goes on
    exactly where it was stopped, with the rates that the config asks for. A test does not replace
    the config of the training, and two trainings at once do not share a work directory. And a
    checkpoint's text is never run as a config.
    """

    _claim: BinaryIO | None = None  # of the work directory
    _running = False
    _ran = False  # before_run
    _loaded: Any = None  # the checkpoint that is being resumed
    _graphs: CudaGraphs | None = None
    trained_classes: Names | None = None  # those of the checkpoint that was loaded

    def setup_env(self, env_cfg: dict) -> None:
        """Sets the environment up, as in MMEngine, and claims the work directory of a training.

        Raises:
            FileExistsError: Another process is training into it.
        """
        super().setup_env(env_cfg)
        if self._train_loop is None or not is_main_process():
            return
        self._claim = claim(Path(self.work_dir) / '.lock')
        if self._claim is None:
            raise FileExistsError(
                f'{self.work_dir}: another process is training into this folder now: wait for it, '
                'or name another folder with --work-dir'
            )

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Builds the logger, and keeps its console readable from the first line on."""
        logger = super().build_logger(*args, **kwargs)
        route_log(logger)
        return logger

    def train(self) -> Any:
        """Trains, as in MMEngine."""
        return self._checked(super().train)

    def val(self) -> dict:
        """Validates, as in MMEngine."""
        return self._checked(super().val)

    def test(self) -> dict:
        """Tests, as in MMEngine. After training it tests the weights that training ended with."""
        return self._checked(super().test)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Wraps the model, as in MMEngine.

        One that is sharded comes to the device block by block, for the device may be too small for
        the whole of it.
        """
        sharded = is_sharded(model_wrapper_cfg)
        if sharded and self.distributed:
            return MODEL_WRAPPERS.build(model_wrapper_cfg, default_args=dict(module=model))
        if sharded:
            self.logger.warning(
                'There is one process, so that nothing is sharded: tools/dist_train.sh or torchrun '
                'starts more'
            )
        return super().wrap_model(model_wrapper_cfg, model)

    def load_or_resume(self) -> None:
        """Loads or resumes once: testing after training must not load again."""
        super().load_or_resume()
        self._has_loaded = True
        self._loaded = None

    def register_default_hooks(self, hooks: dict[str, Hook | dict | None] | None = None) -> None:
        """Registers default hooks, as in MMEngine, with what a training of a method needs.

        A config for MMPretrain need not name them. A checkpoint hook of MMEngine's becomes ours,
        which writes the adapter; None does without a hook.
        """
        hooks = {**_NEEDED, **(hooks or {})}
        saves: Any = hooks.get('checkpoint')
        if isinstance(saves, dict) and saves.get('type') in ('CheckpointHook', CheckpointHook):
            hooks['checkpoint'] = {**saves, 'type': checkpoint_hook.AdapterCheckpointHook}
        super().register_default_hooks(
            {name: hook for name, hook in hooks.items() if hook is not None or name in _DROPPED}
        )

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Builds the loop; those without a type are ours, which can be resumed anywhere."""
        if isinstance(loop, dict) and 'type' not in loop and 'by_epoch' in loop:
            loop = dict(loop)
            loop['type'] = EpochTrainLoop if loop.pop('by_epoch') else IterTrainLoop
        return super().build_train_loop(loop)

    def resume(
        self,
        filename: str,
        resume_optimizer: bool = True,
        resume_param_scheduler: bool = True,
        map_location: str = 'default',
    ) -> None:
        """Resumes a training.

        As in MMEngine, but that settings of the optimizer and of the schedule are the config's,
        see :func:`~gleam_mm.engine.schedule.resume_optimizer`, and that data of another place are
        told. :class:`~gleam_mm.engine.CheckClassesHook` refuses other classes.

        Raises:
            CheckpointError: The file holds weights only, such as an adapter or a best checkpoint;
                or it does not fit what the config asks for.
            ValueError: The training dataset has other classes.
        """
        asked, drawn = self._randomness_cfg.get('seed'), self.seed
        try:
            super().resume(filename, False, False, map_location)
        except KeyError as error:
            if error.args[0] not in ('meta', 'epoch', 'iter', 'message_hub'):
                raise
            raise CheckpointError(
                f'{filename}: holds weights, but no state of a training to go on from; resume from '
                'a checkpoint such as epoch_10.pth, or start from these weights with load_from'
            ) from error
        if asked is not None and asked != self.seed:
            raise CheckpointError(
                f'{filename}: was trained with the seed {self.seed}, not {asked}; resume with '
                f'--seed {self.seed}, or train anew in another folder'
            )
        sampler: Any = getattr(self.train_dataloader.batch_sampler, 'sampler', None)
        if getattr(sampler, 'seed', None) == drawn:
            sampler.seed = self.seed
        data.tell_other_data(self)
        if resume_optimizer:
            schedule.resume_optimizer(self, self._loaded, filename)

    def load_checkpoint(self, filename: str, *args: Any, **kwargs: Any) -> dict:
        """Loads a checkpoint, as in MMEngine; whatever is wrong with it, the file is named.

        Without the config that old checkpoints carry: MMEngine would run it as Python to compare
        numbers of GPUs, so that a crafted checkpoint could run anything.
        """
        try:
            checkpoint = super().load_checkpoint(filename, *args, **kwargs)
        except CheckpointError as error:
            if str(filename) in str(error):
                raise
            raise CheckpointError(f'{filename}: {error}') from error
        checkpoint.get('meta', {}).pop('config', None)
        self.trained_classes = classes_of_meta(checkpoint.get('meta'))
        self._loaded = checkpoint
        return checkpoint

    def dump_config(self) -> None:
        """Writes the config to the work directory, unless that would replace a training's config.

        MMPretrain's own functions and tools take it as it is. Every run's config is also in
        ``vis_data`` of its own log folder. That of a training which is resumed is written once
        nothing has refused to go on, see :meth:`call_hook`.
        """
        if self._train_loop is not None and not self._resume:
            self._write_config()

    def _write_config(self) -> None:
        own: Config = vars(self)['cfg']
        self.cfg = with_scopes(own)
        try:
            super().dump_config()
        finally:
            self.cfg = own

    def scale_lr(self, optim_wrapper: OptimWrapper, auto_scale_lr: dict | None = None) -> None:
        """Scales the learning rate by the batch size, as in MMEngine.

        A step is made of the images of all batches that are accumulated for it.
        """
        batches = getattr(optim_wrapper, '_accumulative_counts', 1)
        if batches > 1 and auto_scale_lr and 'base_batch_size' in auto_scale_lr:
            base = auto_scale_lr['base_batch_size'] / batches
            auto_scale_lr = {**auto_scale_lr, 'base_batch_size': base}
        super().scale_lr(optim_wrapper, auto_scale_lr)

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Calls all hooks, as in MMEngine; ``before_run`` once, before training or testing.

        A second time, before the test that follows a training, ``EMAHook`` would forget the
        averaged weights, and the test would be one of others than are saved.
        """
        if fn_name == 'before_run':
            if self._ran:
                return
            self._ran = True
        if fn_name in ('before_train_iter', 'before_val_iter', 'before_test_iter'):
            self._running = True
        if fn_name == 'before_train':
            schedule.check_monitors(self)
        super().call_hook(fn_name, **kwargs)
        if fn_name == 'before_train':
            if self._resume:
                self._write_config()
            if self.cfg.get('cuda_graph'):  # behind what calibrates, which takes other steps
                model = unwrapped(self.model)
                self._graphs = use_cuda_graphs(model.backbone, model.petl)
        elif fn_name == 'after_train' and self._graphs is not None:
            self._graphs.remove()

    def _maybe_compile(self, target: str) -> None:
        """Compiles what the config's ``compile`` says: the frozen backbone with its method.

        MMEngine compiles whole steps, whose data samples and optimizer break them into pieces. A
        model of another kind is left to it.
        """
        options = self.cfg.get('compile')
        model = unwrapped(self.model)
        if not options or not isinstance(getattr(model, 'petl', None), PETLMethod):
            super()._maybe_compile(target)
            return
        if target == 'train_step' or self._train_loop is None:
            model.backbone.compile(**({} if options is True else options))

    def _checked(self, launch: Any) -> Any:
        self._running = False
        try:
            return launch()
        except errors.SETUP_ERRORS as error:
            if _WORKER_DIED.search(str(error)):
                raise errors.UserError(
                    'a data loader worker died, most likely for want of memory: use fewer workers '
                    '(--cfg-options train_dataloader.num_workers=1, or 0), a smaller batch, or '
                    'datasets that do not keep images in memory'
                ) from error
            if self._running and not isinstance(error, UnreadableImageError):
                raise
            raise errors.UserError(errors.describe(error)) from error
        finally:
            self.call_hook('after_everything')
            if self._claim is not None:
                self._claim.close()
            for loop in (self._train_loop, self._val_loop, self._test_loop):
                if isinstance(loop, BaseLoop):
                    stop_workers(loop.dataloader)
