# The second round with two more seeds: what is left, and what there was.
_base_ = '_gleam-rates.py'
seeds = [1, 2]
trial_seeds = 2
methods = ['gleam-l-same', 'gleam-l-fan-in']
grid = {'optim_wrapper.optimizer.lr': [1e-2, 3e-2]}
