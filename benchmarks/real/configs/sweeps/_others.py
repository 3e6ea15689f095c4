# The methods that no claim needs first, by the same rules.
_base_ = '_real.py'
methods = [
    'gleam-b',
    'adaptformer',
    'adapter-plus',
    'dtl',
    'bitfit',
    'hydra',
    'adapter',
    'vpt-deep',
    'full',
]
