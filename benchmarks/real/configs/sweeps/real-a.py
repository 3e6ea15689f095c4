# The first pair: photographs of things, and a structured task.
_base_ = '_real.py'
methods = ['gleam-t-local-identity', 'gleam-l-local-identity', 'lora']
datasets = ['real-cifar10', 'real-orientation']
