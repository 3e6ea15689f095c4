# At which rate trainings break, on val200: what stands behind the stability part of docs/gleam.md.
# Rates are two, four and eight times that of the wirings; gradients are clipped for all but one.
_base_ = '_minivtab.py'
methods = ['lora-all', 'slora', 'fact', 'gleam-l*']
datasets = ['mini-land', 'mini-letters']
grid = {'optim_wrapper.optimizer.lr': [2e-2, 4e-2, 8e-2]}
final = False
variants = {
    name: {'optim_wrapper.clip_grad.max_norm': 1.0, **options}
    for name, options in {
        'lora-all': dict(method='lora', rank=16, alpha=16.0, sites=['qkv', 'proj', 'fc1', 'fc2']),
        'slora': dict(),
        'fact': dict(),
        'gleam-l': dict(),
        'gleam-l-unclipped': {'method': 'gleam-l', 'optim_wrapper.clip_grad': None},
        'gleam-l-residual': dict(method='gleam-l', residual=1.0),
        'gleam-l-normalized': dict(method='gleam-l', normalize=True),
        'gleam-l-slow': {
            'method': 'gleam-l',
            'optim_wrapper.paramwise_cfg': dict(custom_keys={'petl.shared': dict(lr_mult=0.3)}),
        },
    }.items()
}
