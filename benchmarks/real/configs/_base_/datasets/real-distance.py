_base_ = '_drawn.py'
data_preprocessor = dict(num_classes=6)
train_dataloader = dict(dataset=dict(task='distance'))
val_dataloader = dict(dataset=dict(task='distance'))
test_dataloader = dict(dataset=dict(task='distance'))
