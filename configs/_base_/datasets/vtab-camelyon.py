_base_ = '_vtab.py'
data_preprocessor = dict(num_classes=2)
train_dataloader = dict(dataset=dict(task='patch_camelyon'))
test_dataloader = dict(dataset=dict(task='patch_camelyon'))
