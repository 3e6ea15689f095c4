_base_ = '_vtab.py'
data_preprocessor = dict(num_classes=47)
train_dataloader = dict(dataset=dict(task='dtd'))
test_dataloader = dict(dataset=dict(task='dtd'))
