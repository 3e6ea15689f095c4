_base_ = '_photographs.py'
data_preprocessor = dict(num_classes=4)
train_dataloader = dict(dataset=dict(data_root='data/solar', num_classes=4))
val_dataloader = dict(dataset=dict(data_root='data/solar', num_classes=4))
test_dataloader = dict(dataset=dict(data_root='data/solar', num_classes=4))
