# The paper's headline where it fails by most, twice as long.
_base_ = '_real.py'
methods = ['gleam-t-6-local-identity', 'lora-6']
datasets = ['real-orientation']
variants = {
    name: {'train_cfg.max_epochs': 6, 'train_cfg.val_interval': 6, **options}
    for name, options in {
        'gleam-t-6-local-identity': dict(method='gleam-t', local_init='identity'),
        'gleam-t-6': dict(method='gleam-t'),
        'lora-6': dict(method='lora'),
    }.items()
}
