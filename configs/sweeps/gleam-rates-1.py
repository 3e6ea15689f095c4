# The second round with seed 1: what is left, and what there was.
_base_ = '_gleam-rates.py'
seeds = [1]
methods = ['gleam-l-same', 'gleam-l-fan-in']
grid = {'optim_wrapper.optimizer.lr': [1e-2, 3e-2]}
