# The second round with seed 2: what is left, and what there was.
_base_ = '_gleam-rates.py'
seeds = [2]
methods = ['gleam-l-same', 'gleam-l-fan-in']
grid = {'optim_wrapper.optimizer.lr': [1e-2, 3e-2]}
