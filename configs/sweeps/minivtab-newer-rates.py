# Learning rates of the methods in minivtab-newer.py, by the rule of minivtab-rates.py: the one with
# the best mean over a natural and a structured task, on val200.
_base_ = '_minivtab.py'
methods = [
    'adapter-plus', 'hydra', 'dtl-plus', 'bi-adaptformer', 'neuroada', 'arc', 'rlrr', 'mlae',
    'e2vpt',
]  # fmt: skip
datasets = ['mini-count', 'mini-letters']
grid = {'optim_wrapper.optimizer.lr': [3e-3, 1e-2, 3e-2]}
final = False
