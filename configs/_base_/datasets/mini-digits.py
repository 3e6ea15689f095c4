# Scikit-learn's handwritten digits, whose test has the remaining 797.
_base_ = '_mini.py'
data_preprocessor = dict(num_classes=10)
train_dataloader = dict(dataset=dict(task='digits'))
val_dataloader = dict(dataset=dict(task='digits'))
test_dataloader = dict(dataset=dict(task='digits'))
