# The rivals on the tasks of real-a.py.
_base_ = '_rivals.py'
datasets = ['real-cifar10', 'real-orientation']
