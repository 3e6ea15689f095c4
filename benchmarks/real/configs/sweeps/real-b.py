# The second pair: defects of solar cells, and letters.
_base_ = '_real.py'
methods = ['gleam-t-local-identity', 'gleam-l-local-identity', 'lora']
datasets = ['real-solar', 'real-letters']
