# The third pair: hand signs, and distances.
_base_ = '_real.py'
datasets = ['real-signs', 'real-distance']
