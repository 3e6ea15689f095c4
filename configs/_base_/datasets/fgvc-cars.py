_base_ = '_fgvc.py'
data_preprocessor = dict(num_classes=196)
train_dataloader = dict(dataset=dict(task='stanford_cars'))
test_dataloader = dict(dataset=dict(task='stanford_cars'))
