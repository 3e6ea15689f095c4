# The other methods on every task of MiniVTAB, but for the supernets of GLoRA and NOAH, which are
# searched after their training (docs/search.md). Where nothing is said, the rate is the schedule's.
_base_ = '_minivtab.py'
methods = [
    'linear', 'full', 'fact-tk', 'bitfit', 'adapter', 'adaptformer', 'convpass', 'vpt-deep',
    'vpt-shallow', 'dora', 'vera', 'ia3', 'oft', 'loha', 'lokr', 'randlora', 'vblora',
]  # fmt: skip
variants = {
    name: {'optim_wrapper.optimizer.lr': rate}
    for name, rate in {
        'full': 3e-4,
        'fact-tk': 1e-2,
    }.items()
}
