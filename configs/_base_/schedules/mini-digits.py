# The demo's: as petl_100e, but over in two minutes on two cores.
_base_ = 'petl_100e.py'

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

train_cfg = dict(max_epochs=20)
