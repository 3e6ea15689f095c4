# The second round with seed 1: the four best of the first.
_base_ = '_gleam-wirings.py'
seeds = [1]
methods = ['gleam-l-dense', 'gleam-l-clipped', 'gleam-l-identity', 'gleam-l-soft']
