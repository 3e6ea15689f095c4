# The lower rungs of the ladder and what is compared most often, by the same rules.
_base_ = '_minivtab-tuned.py'
methods = ['slora', 'gleam-b', 'adaptformer', 'linear']
