# A dataset of Hugging Face's library; a fifth of its split `train` is held out for validation. For
# a split of its own: `hold_out=0`, and `split='validation'`.
_base_ = '_held_out.py'

_dataset = dict(type='HuggingFaceDataset', path='data/huggingface', split='train')
train_dataloader = dict(dataset=_dataset)
val_dataloader = dict(dataset=_dataset)
test_dataloader = val_dataloader
del _dataset
