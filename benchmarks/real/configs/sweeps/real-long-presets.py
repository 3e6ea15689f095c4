# The same with the preset of today.
_base_ = 'real-long.py'
methods = ['gleam-t-6']
