"""Metrics that something waits for, by names that no evaluator gives."""

import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from runs import Scripted

from gleam_mm.engine.monitored import names_given
from gleam_mm.errors import UserError
from gleam_mm.registry import METRICS, own_scope


class Count(Hook):
    """Counts iterations."""

    iterations = 0

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.iterations += 1


def waiting(how, metric):
    """Options of a runner in which something waits for a metric, and how messages call that."""
    return {
        'save_best': (dict(checkpoint=dict(save_best=metric)), 'save_best'),
        'early stopping': (
            dict(hooks=[dict(type='EarlyStoppingHook', monitor=metric, rule='greater')]),
            'EarlyStoppingHook: monitor',
        ),
        'schedule': (
            dict(param_scheduler=dict(type='ReduceOnPlateauLR', monitor=metric, rule='greater')),
            'param_scheduler: ReduceOnPlateauLR.monitor',
        ),
    }[how]


@pytest.mark.parametrize('how', ['save_best', 'early stopping', 'schedule'])
def test_a_metric_that_nothing_gives_is_told_before_training(how, make_runner):
    options, called = waiting(how, 'accuracy/top7')
    count = Count()
    options['hooks'] = [*options.get('hooks', ()), count]
    runner = make_runner(**options, val_evaluator=dict(type='Accuracy', topk=(1, 5)))
    told = rf"{called}='accuracy/top7': the evaluators give accuracy/top1, accuracy/top5 \(did you"
    with pytest.raises(UserError, match=told):
        runner.train()
    assert not count.iterations


@pytest.mark.parametrize('how', ['save_best', 'early stopping'])
def test_of_other_evaluators_it_is_told_at_the_first_validation(how, make_runner):
    options, called = waiting(how, 'accuracy/top7')
    runner = make_runner(script=(1.0, 2.0), **options)
    told = rf"{called}='accuracy/top7': the evaluators give accuracy/top1 \(did you mean"
    with pytest.raises(UserError, match=told):
        runner.train()
    assert runner.iter == 2


@pytest.mark.parametrize('how', ['save_best', 'early stopping'])
def test_one_that_is_no_number_is_told_as_well(how, make_runner):
    class EachClass(Scripted):
        def compute_metrics(self, results):
            return {'top1': torch.tensor([1.0, 2.0])}

    METRICS.register_module(name='EachClass', module=EachClass, force=True)
    options, called = waiting(how, 'accuracy/top1')
    runner = make_runner(val_evaluator=dict(type='EachClass'), **options)
    with pytest.raises(UserError, match=f"{called}='accuracy/top1': the evaluators give no metric"):
        runner.train()


@pytest.mark.parametrize('how', ['save_best', 'early stopping', 'schedule'])
def test_without_validation_nothing_is_asked_for(how, make_runner):
    options, _ = waiting(how, 'accuracy/top7')
    make_runner(script=(), **options).train()


def test_names_of_metrics_are_those_of_a_validation():
    for config, names in (
        (dict(type='Accuracy', topk=(1, 5), thrs=(0.0, 0.5)), 4),
        (dict(type='SingleLabelMetric'), 3),
        (dict(type='SingleLabelMetric', average=None), 0),  # of each class
        (dict(type='AveragePrecision'), 1),
        (dict(type='ScriptedAccuracy'), None),  # of somebody else
    ):
        with own_scope():
            found = names_given(Evaluator(config))
        assert (None if found is None else len(found)) == names, config
