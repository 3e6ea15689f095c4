# The fourth pair: land use, and counting.
_base_ = '_real.py'
datasets = ['real-land', 'real-count']
