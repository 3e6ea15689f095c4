# The first round: one seed.
_base_ = '_gleam-starts.py'
