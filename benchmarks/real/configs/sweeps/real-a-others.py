# The further methods on the tasks of real-a.py.
_base_ = '_others.py'
datasets = ['real-cifar10', 'real-orientation']
