# The paper's headline where it fails by most, twice as long.
_base_ = '_real.py'
methods = ['gleam-t-6', 'lora-6']
datasets = ['real-orientation']
variants = {
    name: {**options, 'train_cfg.max_epochs': 6, 'train_cfg.val_interval': 6}
    for name, options in {
        'gleam-t-6': dict(method='gleam-t'),
        'gleam-t-6-uniform': dict(method='gleam-t', local_init='uniform'),
        'lora-6': dict(method='lora'),
    }.items()
}
