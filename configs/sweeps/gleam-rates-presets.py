# Whether the other presets bear the winner.
_base_ = '_gleam-rates.py'
seeds = 3
trial_seeds = 3
methods = ['gleam-t-fan-in', 'gleam-b-fan-in']
datasets = ['mini-land', 'mini-letters']
grid = {'optim_wrapper.optimizer.lr': [3e-2]}
