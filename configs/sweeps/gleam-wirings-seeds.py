# The second round with two more seeds: the four best of the first.
_base_ = '_gleam-wirings.py'
seeds = [1, 2]
trial_seeds = 2
methods = ['gleam-l-dense', 'gleam-l-clipped', 'gleam-l-identity', 'gleam-l-soft']
