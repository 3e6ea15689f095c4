# The second pair: defects of solar cells, and letters.
_base_ = '_real.py'
datasets = ['real-solar', 'real-letters']
