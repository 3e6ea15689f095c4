"""``--auto-scale-lr``: a step is made of the images of all batches that are accumulated for it."""

import pytest


@pytest.mark.parametrize(
    'batch_size, batches, factor', [(8, 4, 1.0), (8, 1, 0.25), (4, 4, 0.5), (4, 16, 2.0)]
)
def test_accumulated_batches_are_one(batch_size, batches, factor, make_runner):
    runner = make_runner(
        loader=dict(batch_size=batch_size),
        optim_wrapper=dict(
            type='OptimWrapper',
            optimizer=dict(type='SGD', lr=0.5),
            accumulative_counts=batches,
        ),
        auto_scale_lr=dict(enable=True, base_batch_size=32),
        param_scheduler=None,
        script=(),
        checkpoint=dict(save_best=None),
        train_cfg=dict(by_epoch=True, max_epochs=1),
    )
    runner.train()
    assert [group['lr'] for group in runner.optim_wrapper.param_groups] == [0.5 * factor]
