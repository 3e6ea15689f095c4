_base_ = '_mini.py'
data_preprocessor = dict(num_classes=7)
train_dataloader = dict(dataset=dict(task='defects'))
val_dataloader = dict(dataset=dict(task='defects'))
test_dataloader = dict(dataset=dict(task='defects'))
