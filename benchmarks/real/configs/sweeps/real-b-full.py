# Full tuning at small rates on the tasks of real-b.py.
_base_ = '_full.py'
datasets = ['real-solar', 'real-letters']
