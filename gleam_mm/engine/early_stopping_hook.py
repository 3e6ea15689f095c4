"""Early stopping, with which a resumed training stops where an uninterrupted one does."""

from typing import Any

from mmengine.hooks import EarlyStoppingHook
from mmengine.runner import Runner

from gleam_mm.engine.checkpoint_hook import AdapterCheckpointHook
from gleam_mm.engine.metrics import rule_of
from gleam_mm.engine.monitored import names_given, numbers_in, require
from gleam_mm.registry import HOOKS


# Under MMEngine's own name, so that it serves every config.
@HOOKS.register_module(name='EarlyStoppingHook')
class ResumedEarlyStoppingHook(EarlyStoppingHook):
    """MMEngine's :class:`EarlyStoppingHook`, which does not forget what it waits for.

    It takes the same arguments. A training that is resumed is judged by all its validations, those
    before included, and by the arguments of now: one that was stopped stays so, unless it is given
    more ``patience``.

    A ``monitor`` that no evaluator gives is refused, whatever ``strict`` says: before the training
    where evaluators tell what they give, else at the first validation.

    Without ``rule``, whether more or less of a metric is better is told by its name, as for the
    best checkpoint.
    """

    priority = 'LOW'  # before a checkpoint hook makes up for a validation that a kill has prevented

    _default_greater_keys = AdapterCheckpointHook._default_greater_keys
    _default_less_keys = AdapterCheckpointHook._default_less_keys
    _trains = False

    def before_run(self, runner: Runner) -> None:
        """Leaves runs alone that do not train, in which MMEngine's asks for the training loop."""

    def before_train(self, runner: Runner) -> None:
        """Judges the validations of a training that is resumed.

        Raises:
            UserError: No evaluator gives what is monitored.
        """
        super().before_run(runner)
        self._trains = True
        if runner.val_loop is None:
            runner.logger.warning(
                'EarlyStoppingHook stops nothing: this training has no validation to judge by'
            )
            return
        self._require(names_given(runner.val_evaluator))
        scores = runner.message_hub.log_scalars.get(f'val/{self.monitor}')
        if not runner._resume or scores is None:
            return
        for score in scores.data[0].tolist():
            stops, reason = self._check_stop_condition(score)
        if stops:
            runner.train_loop.stop_training = True
            runner.logger.info(reason)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, Any] | None = None) -> None:
        """Stops the training, as in MMEngine.

        Raises:
            UserError: The metrics lack what is monitored.
        """
        if self._trains:
            self._require(numbers_in(metrics or {}))
            super().after_val_epoch(runner, metrics or {})

    def _init_rule(self, monitor: str) -> str:
        """Decides whether more or less is better."""
        return rule_of(monitor) or super()._init_rule(monitor)

    def _require(self, given: set[str] | None) -> None:
        require(self.monitor, given, 'EarlyStoppingHook: monitor')
