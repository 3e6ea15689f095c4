# Full tuning at small rates on the tasks of real-a.py.
_base_ = '_full.py'
datasets = ['real-cifar10', 'real-orientation']
