# GLEAM's factors at rates by fan-in, on val200 alone, against the trials of real-a.
_base_ = '_real.py'
methods = ['gleam-l-fan-in', 'gleam-t-fan-in']
datasets = ['real-cifar10', 'real-orientation']
grid = {'optim_wrapper.optimizer.lr': [3e-3, 1e-2, 3e-2]}
final = False
variants = {
    f'{method}-fan-in': dict(method=method, rates='fan-in') for method in ['gleam-t', 'gleam-l']
}
