# The rivals on the tasks of real-d.py.
_base_ = '_rivals.py'
datasets = ['real-land', 'real-count']
