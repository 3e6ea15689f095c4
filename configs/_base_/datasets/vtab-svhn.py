_base_ = '_vtab.py'
data_preprocessor = dict(num_classes=10)
train_dataloader = dict(dataset=dict(task='svhn'))
test_dataloader = dict(dataset=dict(task='svhn'))
