# What the second edition of MiniVTAB shares: as the paper, options are chosen for each task on
# val200, with equal budgets (three rates a method and task), and gradients are clipped for all
# alike. docs/minivtab.md has the rules. GLEAM is wired as its presets are.
_base_ = '_minivtab.py'
grid = {'optim_wrapper.optimizer.lr': [3e-3, 1e-2, 3e-2]}
options = {'optim_wrapper.clip_grad': dict(max_norm=1.0, _delete_=True)}  # over the base's None
# No decay where the official code has none.
variants = {
    'ssf': {'optim_wrapper.paramwise_cfg': dict(custom_keys={'petl': dict(decay_mult=0.0)})},
    'lora-all': dict(method='lora', rank=16, alpha=16.0, sites=['qkv', 'proj', 'fc1', 'fc2']),
}
