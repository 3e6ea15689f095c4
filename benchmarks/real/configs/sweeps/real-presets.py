# GLEAM with the presets of today, on the tasks of real-a.py and real-b.py.
_base_ = '_real.py'
methods = ['gleam-l', 'gleam-t']
datasets = ['real-cifar10', 'real-orientation', 'real-solar', 'real-letters']
