"""Learning rates: of a warm-up of one step, and of a training that goes on with other settings."""

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.optim import LinearLR, OptimWrapper, OptimWrapperDict, _ParamScheduler
from mmengine.runner import EpochBasedTrainLoop, Runner

from gleam_mm.checkpoint import CheckpointError
from gleam_mm.engine.monitored import names_given, require
from gleam_mm.registry import PARAM_SCHEDULERS

EPOCH_LENGTH = 'epoch_length'  # what the message hub remembers it under

# What a scheduler holds besides its settings; its first values are also in the optimizer's groups.
_PROGRESS = {'last_step', '_global_step', '_last_value', 'base_values', 'verbose'}
_PROGRESS |= {'best', 'cooldown_counter', 'num_bad_epochs'}  # of ReduceOnPlateau


# Under MMEngine's own name, so that it serves every config.
@PARAM_SCHEDULERS.register_module(name='LinearLR')
class WarmupLR(LinearLR):
    """MMEngine's ``LinearLR``, whose end is reached in one step as well.

    MMEngine's begins with ``start_factor`` and reaches ``end_factor`` in the last step, so that a
    warm-up of one step leaves the rate at ``start_factor`` for good.
    """

    def _get_value(self) -> list[float]:
        if self.total_iters == 0:
            return [
                group[self.param_name] * self.end_factor for group in self.optimizer.param_groups
            ]
        return super()._get_value()


def resume_optimizer(runner: Runner, checkpoint: Mapping[str, Any], filename: str) -> None:
    """Loads the state of the optimizer and puts the schedule where the training stands.

    What the config asks for counts. Where it differs from what the checkpoint was trained with (a
    rate, a weight decay, the length of the training or of an epoch), the schedule is run through
    again from its start, which is told in the log.

    Args:
        runner: The runner, with its optimizer and its schedulers as the config builds them, and at
            the epoch and iteration of the checkpoint.
        checkpoint: What was loaded.
        filename: The file, for messages.

    Raises:
        CheckpointError: The checkpoint has no optimizer, another one, or one of other parameters;
            or the schedule depends on metrics and cannot be run through again.
    """
    wrappers = dict(_wrappers(runner.optim_wrapper))
    if 'optimizer' not in checkpoint:
        raise CheckpointError(
            f'{filename}: has no state of the optimizer, as the best checkpoints; resume from '
            'one such as epoch_10.pth, or start anew from its weights with load_from'
        )
    states = checkpoint['optimizer']
    states = states if isinstance(runner.optim_wrapper, OptimWrapperDict) else {'': states}
    for name, wrapper in wrappers.items():
        _check_state(wrapper, states.get(name, {}), filename)
    asked = {name: _settings(wrapper) for name, wrapper in wrappers.items()}
    runner.optim_wrapper.load_state_dict(checkpoint['optimizer'])
    schedulers = list(_schedulers(runner.param_schedulers))
    stored = list(_schedulers(checkpoint.get('param_schedulers')))
    scheduled = {scheduler.param_name for scheduler in schedulers}
    changes = _fit_epochs(runner)
    for name, wrapper in wrappers.items():
        for ours, theirs in zip(asked[name], _settings(wrapper), strict=True):
            changes += [
                f'{key} {theirs[key]} -> {value}'
                for key, value in ours.items()
                if key in theirs and key not in scheduled and theirs[key] != value
            ]
    changes += _changes(schedulers, stored)
    if not changes:
        for scheduler, state in zip(schedulers, stored, strict=True):
            scheduler.load_state_dict(state)
        return
    changes = list(dict.fromkeys(changes))
    if any(getattr(scheduler, 'need_val_args', False) for scheduler in schedulers):
        raise CheckpointError(
            f'{filename}: was trained with other settings ({"; ".join(changes)}), and the schedule '
            'depends on metrics, so that it cannot be run through again; resume with the settings '
            'of the checkpoint, or start anew from its weights with load_from'
        )
    runner.logger.warning(f'Resuming with other settings: {"; ".join(changes)}')
    for name, wrapper in wrappers.items():
        for group, settings in zip(wrapper.optimizer.param_groups, asked[name], strict=True):
            group.update(settings)
    _run_through(runner, schedulers)


def check_monitors(runner: Runner) -> None:
    """Refuses a schedule that waits for a metric which no evaluator gives, as far as they tell.

    MMEngine's own message comes at the first validation.

    Raises:
        UserError: There is one.
    """
    schedulers = _schedulers(runner.param_schedulers)
    waiting = [each for each in schedulers if getattr(each, 'need_val_args', False)]
    if waiting and runner.val_loop is not None:
        given = names_given(runner.val_evaluator)
        for each in waiting:
            require(each.monitor, given, f'param_scheduler: {type(each).__name__}.monitor')


def _wrappers(wrapper: OptimWrapper | OptimWrapperDict) -> Iterator[tuple[str, OptimWrapper]]:
    return wrapper.items() if isinstance(wrapper, OptimWrapperDict) else iter([('', wrapper)])


def _schedulers(found: Any) -> Iterator[Any]:
    """Schedulers or their states, of one optimizer or of several."""
    for part in found.values() if isinstance(found, Mapping) else [found or []]:
        yield from part


def _settings(wrapper: OptimWrapper) -> list[dict[str, Any]]:
    groups = wrapper.optimizer.param_groups
    return [{key: value for key, value in group.items() if key != 'params'} for group in groups]


def _check_state(wrapper: OptimWrapper, state: Mapping[str, Any], filename: str) -> None:
    groups = wrapper.optimizer.param_groups
    theirs = state.get('param_groups') or []
    hint = 'resume with the config of the checkpoint, or start anew from its weights with load_from'
    sizes = [len(group['params']) for group in groups]
    if sizes != [len(group['params']) for group in theirs]:
        raise CheckpointError(
            f'{filename}: its optimizer has {sum(len(group["params"]) for group in theirs)} '
            f'parameters in {len(theirs)} groups, but that of the model has {sum(sizes)} in '
            f'{len(groups)}: {hint}'
        )
    ours, others = groups[0].keys() - {'initial_lr'}, theirs[0].keys()
    if ours - others and others - ours - {'initial_lr'}:
        raise CheckpointError(
            f'{filename}: is of another optimizer than {type(wrapper.optimizer).__name__}: {hint}'
        )
    parameters = [parameter for group in groups for parameter in group['params']]
    numbers = [number for group in theirs for number in group['params']]
    for parameter, number in zip(parameters, numbers, strict=True):
        for key, value in state.get('state', {}).get(number, {}).items():
            shape = tuple(getattr(value, 'shape', ()))
            if shape and shape != tuple(parameter.shape):
                raise CheckpointError(
                    f'{filename}: {key} of parameter {number} has the shape {shape} in the '
                    f'optimizer, but the parameter {tuple(parameter.shape)}: {hint}'
                )


def _fit_epochs(runner: Runner) -> list[str]:
    """Puts the count of iterations right where an epoch has another number of them by now."""
    loop = runner.train_loop
    if not isinstance(loop, EpochBasedTrainLoop) or (loop.epoch == 0 and loop.iter == 0):
        return []
    now = len(loop.dataloader)
    before = runner.message_hub.runtime_info.get(EPOCH_LENGTH)
    if before is None:  # of a checkpoint of MMEngine's, or of an earlier version
        before = loop.iter // loop.epoch if loop.epoch and loop.iter % loop.epoch == 0 else now
    if before == now:
        return []
    if loop.iter != loop.epoch * before:
        raise CheckpointError(
            f'cannot resume within epoch {loop.epoch + 1}: an epoch had {before} iterations and '
            f'has {now} now; resume with the same data, batch size and number of processes, or '
            'from the end of an epoch'
        )
    loop._iter = loop.epoch * now
    return [f'iterations an epoch {before} -> {now}']


def _changes(schedulers: list[_ParamScheduler], stored: list[dict[str, Any]]) -> list[str]:
    if len(schedulers) != len(stored):
        return [f'{len(stored)} -> {len(schedulers)} parts of the schedule']
    changes = []
    for index, (scheduler, theirs) in enumerate(zip(schedulers, stored, strict=True)):
        ours = scheduler.state_dict()
        for key in sorted((ours.keys() | theirs.keys()) - _PROGRESS):
            old, new = theirs.get(key), ours.get(key)
            if old != new:
                changes.append(f'param_scheduler.{index}.{key} {old} -> {new}')
    return changes


def _run_through(runner: Runner, schedulers: list[_ParamScheduler]) -> None:
    """Takes the steps that ``ParamSchedulerHook`` has taken since the start."""
    loop = runner.train_loop
    epochs = isinstance(loop, EpochBasedTrainLoop)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of steps of the schedule before one of the optimizer
        for iteration in range(1, loop.iter + 1):
            for scheduler in schedulers:
                if not scheduler.by_epoch:
                    scheduler.step()
            if epochs and iteration % len(loop.dataloader) == 0:
                if iteration // len(loop.dataloader) > loop.epoch:
                    break  # saved after the last iteration of an epoch, before its end
                for scheduler in schedulers:
                    if scheduler.by_epoch:
                        scheduler.step()
