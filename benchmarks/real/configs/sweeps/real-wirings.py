# What GLEAM leaves open, where it is farthest behind, on val200 alone; README.md has the rule.
_base_ = '_real.py'
methods = ['gleam-l-*']
datasets = ['real-letters', 'real-orientation']
final = False
variants = {
    f'gleam-l-{name}': dict(method='gleam-l', **options)
    for name, options in {
        'uniform': dict(local_init='uniform'),
        'alpha0.1': dict(alpha=0.1),
        'alpha10': dict(alpha=10.0),
    }.items()
}
