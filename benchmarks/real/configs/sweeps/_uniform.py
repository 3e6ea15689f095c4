# GLEAM with local transforms that start at random, which passed rule 7 of README.md.
_base_ = '_real.py'
methods = ['gleam-l-uniform', 'gleam-t-uniform']
variants = {
    f'{preset}-uniform': dict(method=preset, local_init='uniform')
    for preset in ('gleam-l', 'gleam-t')
}
