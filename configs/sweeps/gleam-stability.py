# At which rate trainings break, on val200: what stands behind the stability part of docs/gleam.md.
# Rates are two, four and eight times that of the wirings.
_base_ = '_minivtab.py'
methods = ['gleam-l', 'gleam-l-k2', 'gleam-l-k2-unclipped', 'slora', 'fact', 'lora-all']
datasets = ['mini-land', 'mini-letters']
grid = {'optim_wrapper.optimizer.lr': [2e-2, 4e-2, 8e-2]}
final = False
variants = {
    name: {'optim_wrapper.clip_grad': dict(max_norm=1.0), **options}
    for name, options in {
        'gleam-l': dict(),
        'gleam-l-k2': dict(method='gleam-l', top_k=2),
        'gleam-l-k2-unclipped': {
            'method': 'gleam-l',
            'top_k': 2,
            'optim_wrapper.clip_grad': None,
        },
        'slora': dict(),
        'fact': dict(),
        'lora-all': dict(method='lora', rank=16, alpha=16.0, sites=['qkv', 'proj', 'fc1', 'fc2']),
    }.items()
}
