# Full tuning at small rates on the tasks of real-d.py.
_base_ = '_full.py'
datasets = ['real-land', 'real-count']
