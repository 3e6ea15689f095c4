# The rivals on the tasks of real-c.py.
_base_ = '_rivals.py'
datasets = ['real-signs', 'real-distance']
