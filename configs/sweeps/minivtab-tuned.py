# GLEAM with the presets of then and the two that it was behind or level with.
_base_ = '_minivtab-tuned.py'
methods = ['gleam-l-local-identity', 'convpass', 'fact', 'gleam-t-local-identity']
