_base_ = '_photographs.py'
data_preprocessor = dict(num_classes=10)
train_dataloader = dict(dataset=dict(data_root='data/signs', num_classes=10))
val_dataloader = dict(dataset=dict(data_root='data/signs', num_classes=10))
test_dataloader = dict(dataset=dict(data_root='data/signs', num_classes=10))
