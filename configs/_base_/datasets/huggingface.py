# A dataset of Hugging Face's library; a fifth of its split `train` is held out for validation. For
# a split of its own: `hold_out=0`, and `split='validation'`.
_base_ = 'folder.py'

_dataset = dict(
    _delete_=True,
    type='HuggingFaceDataset',
    path='data/huggingface',
    split='train',
    hold_out=0.2,
)
train_dataloader = dict(dataset=dict(**_dataset, pipeline=_base_.train_pipeline))
val_dataloader = dict(
    dataset=dict(**_dataset, take_held_out=True, pipeline=_base_.test_pipeline, test_mode=True)
)
test_dataloader = val_dataloader
del _dataset
