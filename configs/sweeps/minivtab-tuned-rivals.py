# What else the paper's claims about GLEAM need, by the same rules.
_base_ = '_minivtab-tuned.py'
methods = ['lora-all', 'lora', 'repadapter', 'ssf']
