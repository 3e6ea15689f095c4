# The first of the seeds, for all candidates.
_base_ = '_gleam-wirings.py'
seeds = [0]
