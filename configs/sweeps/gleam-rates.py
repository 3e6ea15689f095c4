# The first round: one seed, GLEAM-L.
_base_ = '_gleam-rates.py'
