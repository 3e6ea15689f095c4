_base_ = '_vtab.py'
data_preprocessor = dict(num_classes=4)
train_dataloader = dict(dataset=dict(task='kitti'))
test_dataloader = dict(dataset=dict(task='kitti'))
