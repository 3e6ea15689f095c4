# GLEAM's random start on the tasks of real-d.py.
_base_ = '_uniform.py'
datasets = ['real-land', 'real-count']
