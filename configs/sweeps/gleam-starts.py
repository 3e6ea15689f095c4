# How GLEAM's local transforms start, on val200 alone; the rule is in docs/gleam.md.
_base_ = '_minivtab-tuned.py'
methods = ['gleam-l-*']
trial_seeds = 2
final = False
variants = {
    f'gleam-l-{start}': dict(method='gleam-l', local_init=start)
    for start in ('identity', 'uniform')
}
