"""A bank of adapters behind HTTP. Needs the extra ``serve``: ``pip install 'gleam-mm[serve]'``."""
