# A CSV file with the columns `image` and `label`; a fifth of its lines is held out for validation.
# For a column that says which split a line is of: `hold_out=0`, and `split='train'` and so on.
_base_ = 'folder.py'

_dataset = dict(
    _delete_=True,
    type='CSVDataset',
    ann_file='data/images.csv',
    hold_out=0.2,
)
train_dataloader = dict(dataset=dict(**_dataset, pipeline=_base_.train_pipeline))
val_dataloader = dict(
    dataset=dict(**_dataset, take_held_out=True, pipeline=_base_.test_pipeline, test_mode=True)
)
test_dataloader = val_dataloader
del _dataset
