# GLEAM's A and kernels at rates by their fan-in, on val200 alone, against the trials of real-a; the
# rule is in docs/gleam.md.
_base_ = '_real.py'
methods = ['gleam-l-fan-in', 'gleam-t-fan-in']
datasets = ['real-cifar10', 'real-orientation']
grid = {'optim_wrapper.optimizer.lr': [3e-3, 1e-2, 3e-2]}
final = False
variants = {
    f'{method}-fan-in': {
        'method': method,
        'optim_wrapper.paramwise_cfg': dict(
            custom_keys={
                'mixer.kernels': dict(lr_mult=1 / 9),
                'projections.0.down': dict(lr_mult=rank / 384),
            }
        ),
    }
    for method, rank in {'gleam-t': 4, 'gleam-l': 16}.items()
}
