# The schedule of MiniVTAB's sweeps: as mini, in six epochs and with bfloat16, on a CPU as well.
_base_ = 'mini.py'

optim_wrapper = dict(type='AmpOptimWrapper', dtype='bfloat16')

param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-3,
        by_epoch=True,
        begin=0,
        end=1,
        convert_to_iter_based=True,
    ),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=1, convert_to_iter_based=True),
]

train_cfg = dict(max_epochs=6)
