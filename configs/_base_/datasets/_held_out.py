# What data without splits of their own share: a fifth is held out for validation.
_base_ = 'folder.py'

train_dataloader = dict(
    dataset=dict(_delete_=True, hold_out=0.2, pipeline=_base_.train_pipeline),
)
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        hold_out=0.2,
        take_held_out=True,
        pipeline=_base_.test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
