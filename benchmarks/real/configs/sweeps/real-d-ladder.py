# The ladder on the tasks of real-d.py.
_base_ = '_ladder.py'
datasets = ['real-land', 'real-count']
