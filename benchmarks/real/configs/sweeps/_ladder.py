# The rungs below GLEAM, and SSF, which the other claims need, by the same rules.
_base_ = '_real.py'
methods = ['ssf', 'slora', 'lora-all']
