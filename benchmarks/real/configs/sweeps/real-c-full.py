# Full tuning at small rates on the tasks of real-c.py.
_base_ = '_full.py'
datasets = ['real-signs', 'real-distance']
