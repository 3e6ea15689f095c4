# Full tuning at rates that it can learn with; README.md, rule 8.
_base_ = '_real.py'
methods = ['full-slow']
grid = {'optim_wrapper.optimizer.lr': [1e-5, 3e-5, 1e-4]}
variants = {'full-slow': dict(method='full')}
