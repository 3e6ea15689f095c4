_base_ = '_vtab.py'
data_preprocessor = dict(num_classes=6)
train_dataloader = dict(dataset=dict(task='clevr_dist'))
test_dataloader = dict(dataset=dict(task='clevr_dist'))
