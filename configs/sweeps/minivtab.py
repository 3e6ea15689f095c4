# GLEAM and what the paper's claims compare it with, on every task of MiniVTAB:
#     python tools/sweep.py run minivtab --workers 2
_base_ = '_minivtab.py'
methods = [
    # The ladder from LoRA to GLEAM, at every Linear and at qkv.
    'gleam-l', 'lora', 'slora', 'lora-all', 'slora-qkv',
    # What GLEAM-T, -B and -L are compared with, at as many parameters or more.
    'gleam-b', 'gleam-t', 'fact', 'repadapter', 'ssf',
    'lora-r10', 'lora-r3', 'lora-r1', 'fact-r19', 'fact-r10', 'fact-r5', 'repadapter-r12',
]  # fmt: skip
# Rates from minivtab-rates.py, there where it decides; a variant has that of its method.
variants = {
    name: {'optim_wrapper.optimizer.lr': rate, **options}
    for name, rate, options in [
        ('gleam-l', 1e-2, dict(top_k=2)),
        ('gleam-b', 3e-3, dict(top_k=2)),
        ('gleam-t', 1e-2, dict(top_k=2)),
        ('lora', 3e-3, {}),
        ('lora-r10', 3e-3, dict(method='lora', rank=10, alpha=10.0)),
        ('lora-r3', 3e-3, dict(method='lora', rank=3, alpha=3.0)),
        ('lora-r1', 3e-3, dict(method='lora', rank=1, alpha=1.0)),
        (
            'lora-all',
            3e-3,
            dict(method='lora', rank=16, alpha=16.0, sites=['qkv', 'proj', 'fc1', 'fc2']),
        ),
        ('repadapter', 1e-2, {}),
        ('repadapter-r12', 1e-2, dict(method='repadapter', rank=12)),
        ('ssf', 3e-2, {}),
        ('slora', 1e-2, {}),
        ('slora-qkv', 1e-2, dict(method='slora', rank=8, sites=['qkv'])),
        ('fact', 1e-2, {}),
        ('fact-r19', 1e-2, dict(method='fact', rank=19)),
        ('fact-r10', 1e-2, dict(method='fact', rank=10)),
        ('fact-r5', 1e-2, dict(method='fact', rank=5)),
    ]
}
