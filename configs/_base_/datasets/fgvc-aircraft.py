_base_ = '_fgvc.py'
data_preprocessor = dict(num_classes=100)
train_dataloader = dict(dataset=dict(task='fgvc_aircraft'))
test_dataloader = dict(dataset=dict(task='fgvc_aircraft'))
