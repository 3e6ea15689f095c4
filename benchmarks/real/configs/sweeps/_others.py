# The methods that no claim needs first, by the same rules.
_base_ = '_real.py'
methods = [
    'gleam-b', 'ssf', 'adaptformer', 'slora', 'lora-all', 'adapter-plus', 'dtl', 'bitfit', 'hydra',
    'adapter', 'vpt-deep', 'full',
]  # fmt: skip
