_base_ = '_fgvc.py'
data_preprocessor = dict(num_classes=37)
train_dataloader = dict(dataset=dict(task='oxford_pets'))
test_dataloader = dict(dataset=dict(task='oxford_pets'))
