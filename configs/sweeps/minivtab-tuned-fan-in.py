# GLEAM-L whose factors learn at rates by their fan-in, by the same rules.
_base_ = '_minivtab-tuned.py'
methods = ['gleam-l-fan-in']
