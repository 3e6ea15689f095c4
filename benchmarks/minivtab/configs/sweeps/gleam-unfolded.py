# What does not fold, for the record: configs/sweeps/_gleam-wirings.py with other experts.
_base_ = '../../../../configs/sweeps/_minivtab.py'
methods = ['gleam-l-gelu', 'gleam-l-bicubic', 'gleam-l-gelu-bicubic']
datasets = ['mini-land', 'mini-distance', 'mini-letters', 'mini-orientation']
grid = {'optim_wrapper.optimizer.lr': [1e-2]}
seeds = 1
final = False
variants = {
    f'gleam-l-{name}': {
        'method': 'gleam-l-unfolded',
        'optim_wrapper.clip_grad': dict(max_norm=1.0),
        **options,
    }
    for name, options in {
        'gelu': dict(gelu=True),
        'bicubic': dict(bicubic=True),
        'gelu-bicubic': dict(gelu=True, bicubic=True),
    }.items()
}
