_base_ = '_vtab.py'
data_preprocessor = dict(num_classes=100)
train_dataloader = dict(dataset=dict(task='cifar'))
test_dataloader = dict(dataset=dict(task='cifar'))
