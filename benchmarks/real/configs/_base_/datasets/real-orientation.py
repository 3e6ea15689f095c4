_base_ = '_drawn.py'
data_preprocessor = dict(num_classes=16)
train_dataloader = dict(dataset=dict(task='orientation'))
val_dataloader = dict(dataset=dict(task='orientation'))
test_dataloader = dict(dataset=dict(task='orientation'))
