_base_ = '_vtab.py'
data_preprocessor = dict(num_classes=397)
train_dataloader = dict(dataset=dict(task='sun397'))
test_dataloader = dict(dataset=dict(task='sun397'))
