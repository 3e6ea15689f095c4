# The other methods on every task of MiniVTAB, but for the supernets of GLoRA and NOAH, which are
# searched after their training (docs/supernets.md). Rates from minivtab-rates.py, but for full
# tuning.
_base_ = '_minivtab.py'
methods = [
    'linear', 'full', 'fact-tk', 'bitfit', 'adapter', 'adaptformer', 'convpass', 'vpt-deep',
    'vpt-shallow', 'dora', 'vera', 'ia3', 'oft', 'loha', 'lokr', 'randlora', 'vblora',
]  # fmt: skip
variants = {
    name: {'optim_wrapper.optimizer.lr': rate}
    for name, rate in {
        'linear': 1e-2,
        'full': 3e-4,
        'fact-tk': 1e-2,
        'bitfit': 3e-2,
        'adapter': 3e-3,
        'adaptformer': 1e-2,
        'convpass': 1e-2,
        'vpt-deep': 3e-2,
        'vpt-shallow': 3e-2,
        'dora': 1e-2,
        'vera': 3e-2,
        'ia3': 1e-2,
        'oft': 3e-3,
        'loha': 3e-2,
        'lokr': 3e-2,
        'randlora': 3e-3,
        'vblora': 3e-3,
    }.items()
}
