_base_ = '_vtab.py'
data_preprocessor = dict(num_classes=5)
train_dataloader = dict(dataset=dict(task='diabetic_retinopathy'))
test_dataloader = dict(dataset=dict(task='diabetic_retinopathy'))
