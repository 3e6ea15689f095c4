# The second round with seed 2: the four best of the first.
_base_ = '_gleam-wirings.py'
seeds = [2]
methods = ['gleam-l-dense', 'gleam-l-clipped', 'gleam-l-identity', 'gleam-l-soft']
