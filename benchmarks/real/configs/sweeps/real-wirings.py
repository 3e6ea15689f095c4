# What GLEAM leaves open, where it is farthest behind, on val200 alone; README.md has the rule.
_base_ = '_real.py'
methods = ['gleam-l-uniform', 'gleam-l-alpha0.1', 'gleam-l-alpha10']
datasets = ['real-letters', 'real-orientation']
final = False
variants = {
    f'gleam-l-{name}': {'method': 'gleam-l', 'local_init': 'identity', **options}
    for name, options in {
        'uniform': dict(local_init='uniform'),
        'alpha0.1': dict(alpha=0.1),
        'alpha10': dict(alpha=10.0),
    }.items()
}
