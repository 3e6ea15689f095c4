_base_ = '_drawn.py'
data_preprocessor = dict(num_classes=8)
train_dataloader = dict(dataset=dict(task='land'))
val_dataloader = dict(dataset=dict(task='land'))
test_dataloader = dict(dataset=dict(task='land'))
