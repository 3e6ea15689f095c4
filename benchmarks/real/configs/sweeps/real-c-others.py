# The further methods on the tasks of real-c.py.
_base_ = '_others.py'
datasets = ['real-signs', 'real-distance']
