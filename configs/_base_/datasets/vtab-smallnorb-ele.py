_base_ = '_vtab.py'
data_preprocessor = dict(num_classes=9)
train_dataloader = dict(dataset=dict(task='smallnorb_ele'))
test_dataloader = dict(dataset=dict(task='smallnorb_ele'))
