# Learning rates of methods for the other sweeps of MiniVTAB: the one with the best mean over a
# natural and a structured task, on val200.
_base_ = '_minivtab.py'
methods = [
    'gleam-l', 'lora', 'slora', 'fact', 'gleam-b', 'gleam-t', 'repadapter', 'ssf', 'fact-tk',
    'linear', 'bitfit', 'adapter', 'adaptformer', 'convpass', 'vpt-deep', 'vpt-shallow',
    'dora', 'vera', 'ia3', 'oft', 'loha', 'lokr', 'randlora', 'vblora',
]  # fmt: skip
datasets = ['mini-count', 'mini-letters']
grid = {'optim_wrapper.optimizer.lr': [3e-3, 1e-2, 3e-2]}
final = False
variants = {name: dict(top_k=2) for name in ('gleam-l', 'gleam-b', 'gleam-t')}
