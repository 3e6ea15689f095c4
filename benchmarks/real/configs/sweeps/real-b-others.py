# The further methods on the tasks of real-b.py.
_base_ = '_others.py'
datasets = ['real-solar', 'real-letters']
