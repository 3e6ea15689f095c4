# GLEAM and the two that it was behind or level with.
_base_ = '_minivtab-tuned.py'
methods = ['gleam-l-even', 'convpass', 'fact', 'gleam-t']
