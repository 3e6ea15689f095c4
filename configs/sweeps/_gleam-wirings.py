# Candidates for the wiring and training of GLEAM's presets, on val200 alone; the rule by which one
# of them is chosen is in docs/gleam.md.
_base_ = '_minivtab.py'
methods = ['gleam-l-*']
datasets = ['mini-land', 'mini-distance', 'mini-letters', 'mini-orientation']
grid = {'optim_wrapper.optimizer.lr': [1e-2]}
final = False
variants = {
    f'gleam-l-{name}': {
        'method': 'gleam-l',
        'top_k': 2,
        'optim_wrapper.clip_grad': dict(max_norm=1.0),
        **options,
    }
    for name, options in {
        'clipped': dict(),
        'unclipped': {'optim_wrapper.clip_grad': None},
        'residual': dict(residual=1.0),
        'fact': dict(local_init='uniform', drop_rate=0.1),
        'residual-fact': dict(residual=1.0, local_init='uniform', drop_rate=0.1),
        'token': dict(gate='token'),
        'token-residual': dict(gate='token', residual=1.0),
        'normalized': dict(normalize=True),
        'normalized-residual': dict(normalize=True, residual=1.0),
        'slow': {
            'optim_wrapper.paramwise_cfg': dict(custom_keys={'petl.shared': dict(lr_mult=0.3)})
        },
        'dense': dict(top_k=4),
        'zero-gate': dict(gate_init='zero', noise_floor=0.01),
        'soft': dict(renormalize=False),
        'identity': dict(expert_init='identity'),
        'half-residual': dict(residual=0.3),
    }.items()
}
