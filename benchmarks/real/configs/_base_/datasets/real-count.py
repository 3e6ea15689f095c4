_base_ = '_drawn.py'
data_preprocessor = dict(num_classes=8)
train_dataloader = dict(dataset=dict(task='count'))
val_dataloader = dict(dataset=dict(task='count'))
test_dataloader = dict(dataset=dict(task='count'))
