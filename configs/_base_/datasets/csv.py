# A CSV file with the columns `image` and `label`; a fifth of its lines is held out for validation.
# For a column that says which split a line is of: `--data images.csv`, which reads the column
# `split`; or `hold_out=0`, and `split='train'` and so on.
_base_ = '_held_out.py'

_dataset = dict(type='CSVDataset', ann_file='data/images.csv')
train_dataloader = dict(dataset=_dataset)
val_dataloader = dict(dataset=_dataset)
test_dataloader = val_dataloader
del _dataset
