# The further methods on the tasks of real-d.py.
_base_ = '_others.py'
datasets = ['real-land', 'real-count']
