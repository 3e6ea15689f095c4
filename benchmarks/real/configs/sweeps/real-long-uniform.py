# real-long.py with local transforms that start at random.
_base_ = 'real-long.py'
methods = ['gleam-t-6-uniform']
variants = {
    'gleam-t-6-uniform': {
        'method': 'gleam-t',
        'local_init': 'uniform',
        'train_cfg.max_epochs': 6,
        'train_cfg.val_interval': 6,
    }
}
