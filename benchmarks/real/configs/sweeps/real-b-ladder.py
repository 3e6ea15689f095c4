# The ladder on the tasks of real-b.py.
_base_ = '_ladder.py'
datasets = ['real-solar', 'real-letters']
