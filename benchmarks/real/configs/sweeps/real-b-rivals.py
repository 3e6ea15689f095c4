# The rivals on the tasks of real-b.py.
_base_ = '_rivals.py'
datasets = ['real-solar', 'real-letters']
