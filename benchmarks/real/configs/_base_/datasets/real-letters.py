_base_ = '_drawn.py'
data_preprocessor = dict(num_classes=26)
train_dataloader = dict(dataset=dict(task='letters'))
val_dataloader = dict(dataset=dict(task='letters'))
test_dataloader = dict(dataset=dict(task='letters'))
