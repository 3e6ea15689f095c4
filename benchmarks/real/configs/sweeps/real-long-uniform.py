# The same with local transforms that start at random.
_base_ = 'real-long.py'
methods = ['gleam-t-6-uniform']
