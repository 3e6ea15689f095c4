# Tar files in WebDataset's layout; a fifth of their pictures is held out for validation. For
# shards of its own: `hold_out=0`, and `shards='data/val-*.tar'`.
_base_ = '_held_out.py'

_dataset = dict(type='TarDataset', shards='data/train-*.tar')
train_dataloader = dict(dataset=_dataset)
val_dataloader = dict(dataset=_dataset)
test_dataloader = val_dataloader
del _dataset
