# GLEAM's presets with local transforms that start at random, on val200 alone, against the trials of
# minivtab-tuned.py and -others.py; the rule is in docs/gleam.md.
_base_ = '_minivtab-tuned.py'
methods = ['gleam-l-uniform', 'gleam-t-uniform', 'gleam-b-uniform']
final = False
variants = {
    f'{preset}-uniform': dict(method=preset, local_init='uniform')
    for preset in ('gleam-l', 'gleam-t', 'gleam-b')
}
