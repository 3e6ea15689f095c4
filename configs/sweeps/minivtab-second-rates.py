# How much hangs on learning rates: what minivtab.py compares, with the rate that came second in
# minivtab-rates.py, where 400 images of val200 decide.
_base_ = '_minivtab.py'
seeds = 1
variants = {
    f'{name}-lr{rate:g}': {'method': name, 'optim_wrapper.optimizer.lr': rate, **options}
    for name, rate, options in [
        ('gleam-b', 1e-2, dict(top_k=2)),
        ('lora', 1e-2, {}),
        ('gleam-t', 3e-3, dict(top_k=2)),
        ('ssf', 1e-2, {}),
        ('gleam-l', 3e-3, dict(top_k=2)),
        ('slora', 3e-3, {}),
        ('fact', 3e-3, {}),
        ('repadapter', 3e-3, {}),
        (
            'lora-all',
            1e-2,
            dict(method='lora', rank=16, alpha=16.0, sites=['qkv', 'proj', 'fc1', 'fc2']),
        ),
    ]
}
methods = list(variants)
