# GLEAM-L whose factors learn at rates by their fan-in, 3 r over the number of products that an
# output of each sums, on the tasks of real-a.py: what docs/gleam.md says of it.
_base_ = '_real.py'
methods = ['gleam-l-fan-in']
datasets = ['real-cifar10', 'real-orientation']
variants = {
    'gleam-l-fan-in': {
        'method': 'gleam-l',
        'optim_wrapper.paramwise_cfg': dict(
            custom_keys={
                'mixer.kernels': dict(lr_mult=1 / 3),
                'petl.local': dict(lr_mult=3.0),
                'projections.0.down': dict(lr_mult=3 * 16 / 384),
                'projections.0.up': dict(lr_mult=3.0),
            }
        ),
    }
}
