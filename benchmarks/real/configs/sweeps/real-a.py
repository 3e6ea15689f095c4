# The first pair: photographs of things, and a structured task.
_base_ = '_real.py'
methods = ['gleam-t', 'gleam-l-even', 'lora']
datasets = ['real-cifar10', 'real-orientation']
