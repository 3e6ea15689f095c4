# GLEAM's random start on the tasks of real-a.py and real-b.py.
_base_ = '_uniform.py'
datasets = ['real-cifar10', 'real-orientation', 'real-solar', 'real-letters']
