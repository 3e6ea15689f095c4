# What the paper leaves open in GLEAM, against gleam-l in minivtab.py.
_base_ = '_minivtab.py'
methods = ['gleam-l-*']
variants = {
    f'gleam-l-{name}': {
        'method': 'gleam-l',
        'top_k': 2,
        'optim_wrapper.optimizer.lr': 1e-2,
        **options,
    }
    for name, options in {
        'identity': dict(expert_init='identity'),
        'token-gate': dict(gate='token'),
        'same-scales': dict(scales=[1, 1, 1, 1]),
        'wide': dict(moe_side='wide'),
        'powers': dict(scales=[1, 2, 4, 8]),
    }.items()
}
