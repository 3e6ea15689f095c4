_base_ = '_fgvc.py'
data_preprocessor = dict(num_classes=102)
train_dataloader = dict(dataset=dict(task='oxford_flowers'))
test_dataloader = dict(dataset=dict(task='oxford_flowers'))
