# Tar files in WebDataset's layout; a fifth of their pictures is held out for validation. For
# shards of its own: `hold_out=0`, and `shards='data/val-*.tar'`.
_base_ = 'folder.py'

_dataset = dict(
    _delete_=True,
    type='TarDataset',
    shards='data/train-*.tar',
    hold_out=0.2,
)
train_dataloader = dict(dataset=dict(**_dataset, pipeline=_base_.train_pipeline))
val_dataloader = dict(
    dataset=dict(**_dataset, take_held_out=True, pipeline=_base_.test_pipeline, test_mode=True)
)
test_dataloader = val_dataloader
del _dataset
