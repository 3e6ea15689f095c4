# Methods that are younger than GLEAM or came to this project after the others, on every task of
# MiniVTAB. Rates from minivtab-newer-rates.py; of two that are level there, the lower one.
_base_ = '_minivtab.py'
methods = [
    'adapter-plus', 'hydra', 'dtl-plus', 'bi-adaptformer', 'neuroada', 'arc', 'rlrr', 'mlae',
    'e2vpt',
]  # fmt: skip
variants = {
    name: {'optim_wrapper.optimizer.lr': rate}
    for name, rate in {
        'adapter-plus': 3e-3,
        'hydra': 3e-3,
        'dtl-plus': 1e-2,
        'bi-adaptformer': 1e-2,
        'neuroada': 1e-2,
        'arc': 3e-3,
        'rlrr': 3e-2,
        'mlae': 3e-3,
        'e2vpt': 1e-2,
    }.items()
}
