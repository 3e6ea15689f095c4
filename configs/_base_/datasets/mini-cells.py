_base_ = '_mini.py'
data_preprocessor = dict(num_classes=8)
train_dataloader = dict(dataset=dict(task='cells'))
val_dataloader = dict(dataset=dict(task='cells'))
test_dataloader = dict(dataset=dict(task='cells'))
