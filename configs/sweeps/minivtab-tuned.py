# GLEAM with today's presets and the two that it was behind or level with.
_base_ = '_minivtab-tuned.py'
methods = ['gleam-l', 'convpass', 'fact', 'gleam-t']
