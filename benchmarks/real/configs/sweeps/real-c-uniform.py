# GLEAM's random start on the tasks of real-c.py.
_base_ = '_uniform.py'
datasets = ['real-signs', 'real-distance']
