_base_ = '_vtab.py'
data_preprocessor = dict(num_classes=16)
train_dataloader = dict(dataset=dict(task='dsprites_loc'))
test_dataloader = dict(dataset=dict(task='dsprites_loc'))
