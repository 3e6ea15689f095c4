# How fast the parts of GLEAM learn, on val200 alone; the rule is in docs/gleam.md.
_base_ = '_minivtab.py'
methods = ['gleam-l-*']
datasets = ['mini-land', 'mini-distance', 'mini-letters', 'mini-orientation']
grid = {'optim_wrapper.optimizer.lr': [1e-2, 3e-2, 1e-1]}
final = False
variants = {
    f'{method}-{name}': {
        'method': method,
        'optim_wrapper.clip_grad': dict(max_norm=1.0),
        'optim_wrapper.paramwise_cfg': dict(
            custom_keys={part: dict(lr_mult=rate) for part, rate in rates.items()}
        ),
    }
    for method, rank in {'gleam-t': 4, 'gleam-b': 8, 'gleam-l': 16}.items()
    for name, rates in {
        'same': {},
        'taps': {'mixer.kernels': 1 / 9},
        'third': {'mixer.kernels': 1 / 3},
        'down': {'projections.0.down': rank / 128},
        'fan-in': {'mixer.kernels': 1 / 9, 'projections.0.down': rank / 128},
    }.items()
}
