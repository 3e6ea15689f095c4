# For all tasks of MiniVTAB: as petl_100e, but over in two minutes on two cores. The rate is the
# best of 2e-3, 5e-3 and 1e-2 for GLEAM-L on the digits' val200; docs/digits.md has those of other
# methods.
_base_ = 'petl_100e.py'

optim_wrapper = dict(optimizer=dict(lr=1e-2))

param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-3,
        by_epoch=True,
        begin=0,
        end=2,
        convert_to_iter_based=True,
    ),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=2, convert_to_iter_based=True),
]

train_cfg = dict(max_epochs=15)
