# GLEAM with the presets of today.
_base_ = '_minivtab-tuned.py'
methods = ['gleam-l', 'gleam-t', 'gleam-b']
