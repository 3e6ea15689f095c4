_base_ = '_mini.py'
data_preprocessor = dict(num_classes=12)
train_dataloader = dict(dataset=dict(task='textures'))
val_dataloader = dict(dataset=dict(task='textures'))
test_dataloader = dict(dataset=dict(task='textures'))
