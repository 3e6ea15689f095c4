# The ladder on the tasks of real-c.py.
_base_ = '_ladder.py'
datasets = ['real-signs', 'real-distance']
