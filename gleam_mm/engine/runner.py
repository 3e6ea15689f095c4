"""MMEngine's runner with a readable console and errors that a user can act on."""

from typing import Any

from mmengine.logging import MMLogger
from mmengine.runner import Runner

from gleam_mm import errors
from gleam_mm.checkpoint import CheckpointError
from gleam_mm.datasets import UnreadableImageError
from gleam_mm.engine.console_hook import route_log
from gleam_mm.registry import RUNNERS


@RUNNERS.register_module()
class PETLRunner(Runner):
    """The runner of ``configs/_base_/default_runtime.py``.

    It differs from MMEngine's in four ways. What fills pages goes to the log file only. Until the
    first iteration, whatever does not fit (classes, checkpoint, data) is a
    :class:`~gleam_mm.errors.UserError`, and after it an image that cannot be read. A test does not
    replace the config of the training. And a checkpoint's text is never run as a config.
    """

    _running = False

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

    def load_or_resume(self) -> None:
        """Loads or resumes once: testing after training must not load again."""
        super().load_or_resume()
        self._has_loaded = True

    def resume(self, filename: str, *args: Any, **kwargs: Any) -> None:
        """Resumes a training, as in MMEngine.

        Raises:
            CheckpointError: The file holds weights only, such as an adapter.
        """
        try:
            super().resume(filename, *args, **kwargs)
        except KeyError as error:
            if error.args[0] not in ('meta', 'epoch', 'iter', 'message_hub'):
                raise
            raise CheckpointError(
                f'{filename}: holds weights, but no state of a training to go on from; resume from '
                'a checkpoint such as epoch_10.pth, or start from these weights with load_from'
            ) from error

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
        return checkpoint

    def dump_config(self) -> None:
        """Writes the config to the work directory, unless that would replace a training's config.

        Every run's config is also in ``vis_data`` of its own log folder.
        """
        if self._train_loop is not None:
            super().dump_config()

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Calls all hooks, as in MMEngine."""
        if fn_name in ('before_train_iter', 'before_val_iter', 'before_test_iter'):
            self._running = True
        super().call_hook(fn_name, **kwargs)

    def _checked(self, launch: Any) -> Any:
        self._running = False
        try:
            return launch()
        except errors.SETUP_ERRORS as error:
            if self._running and not isinstance(error, UnreadableImageError):
                raise
            raise errors.UserError(errors.describe(error)) from error
        finally:
            self.call_hook('after_everything')
