# The ladder on the tasks of real-a.py.
_base_ = '_ladder.py'
datasets = ['real-cifar10', 'real-orientation']
