# What else the claims about GLEAM-L need, by the same rules.
_base_ = '_real.py'
methods = ['fact', 'repadapter', 'convpass', 'linear']
