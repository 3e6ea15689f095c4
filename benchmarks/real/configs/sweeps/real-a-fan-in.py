# GLEAM-L whose factors learn at rates by their fan-in, on the tasks of real-a.py.
_base_ = '_real.py'
methods = ['gleam-l-fan-in']
datasets = ['real-cifar10', 'real-orientation']
