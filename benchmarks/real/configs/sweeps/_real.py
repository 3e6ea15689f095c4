# What the sweeps of this benchmark share; README.md has the rules. A training passes three times
# over its images, in bfloat16. Three rates for every method, chosen for each task on val200.
backbone = 'real-vit'
methods = ['gleam-t', 'gleam-l', 'lora']  # the paper's headline; the others in _rivals and _others
grid = {'optim_wrapper.optimizer.lr': [1e-3, 3e-3, 1e-2]}
seeds = 3
options = {
    'optim_wrapper.type': 'AmpOptimWrapper',
    'optim_wrapper.dtype': 'bfloat16',
    'test_cfg.fp16': True,  # MMEngine's name for automatic mixed precision, bfloat16 on a CPU
}
# No decay where the official code has none.
variants = {
    'ssf': {'optim_wrapper.paramwise_cfg': dict(custom_keys={'petl': dict(decay_mult=0.0)})},
    'bitfit': {'optim_wrapper.paramwise_cfg': dict(custom_keys={'backbone': dict(decay_mult=0.0)})},
    'lora-all': dict(method='lora', sites=['qkv', 'proj', 'fc1', 'fc2']),
}
