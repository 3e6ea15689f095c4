# The first pair: photographs of things, and a structured task.
_base_ = '_real.py'
datasets = ['real-cifar10', 'real-orientation']
