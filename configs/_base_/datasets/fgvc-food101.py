_base_ = '_fgvc.py'
data_preprocessor = dict(num_classes=101)
train_dataloader = dict(dataset=dict(task='food-101'))
test_dataloader = dict(dataset=dict(task='food-101'))
