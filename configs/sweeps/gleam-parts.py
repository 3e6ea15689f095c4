# Which part of GLEAM breaks at a high rate: one of them at a tenth of it, on val200.
_base_ = '_minivtab.py'
methods = ['gleam-l-*']
datasets = ['mini-land', 'mini-letters']
grid = {'optim_wrapper.optimizer.lr': [3e-2]}
final = False
variants = {
    f'gleam-l-{name}': {
        'method': 'gleam-l',
        'optim_wrapper.clip_grad': dict(max_norm=1.0),
        'optim_wrapper.paramwise_cfg': dict(
            custom_keys={part: dict(lr_mult=0.1) for part in parts}
        ),
    }
    for name, parts in {
        'none': [],
        'head': ['head'],
        'local': ['petl.local'],
        'gate': ['mixer.gate', 'mixer.noise'],
        'up': ['projections.0.up'],
        'down': ['projections.0.down'],
        'kernels': ['mixer.kernels'],
    }.items()
}
