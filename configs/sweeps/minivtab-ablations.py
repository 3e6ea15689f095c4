# The ablations of the paper's Table 2, and the rungs between SLoRA and GLEAM. The baseline, n = 4,
# k = 2, alpha = 1 at every Linear, is gleam-l in minivtab.py.
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
        'n0': dict(moe=False),
        'no-local': dict(local=False),
        'attention': dict(sites=['qkv', 'proj']),
        'k1': dict(top_k=1),
        'k3': dict(top_k=3),
        'alpha0.1': dict(alpha=0.1),
        'alpha10': dict(alpha=10.0),
        'n2': dict(num_experts=2),
        'n3': dict(num_experts=3),
        'n5': dict(num_experts=5),
        'alpha0.01': dict(alpha=0.01),
        'alpha100': dict(alpha=100.0),
    }.items()
}
