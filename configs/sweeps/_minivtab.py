# What the sweeps of MiniVTAB share. A training passes six times over its 1,000 images, in bfloat16,
# so that two cores can repeat all of it; docs/minivtab.md has what came out. They keep what they
# were measured with: no clipping of gradients, and GLEAM with two experts an image.
backbone = 'vit-mini'
datasets = ['mini']
seeds = 3
options = {
    'train_cfg.max_epochs': 6,
    'train_cfg.val_interval': 6,
    'param_scheduler.0.end': 1,
    'param_scheduler.1.begin': 1,
    'optim_wrapper.type': 'AmpOptimWrapper',
    'optim_wrapper.dtype': 'bfloat16',
    'optim_wrapper.clip_grad': None,
    'test_cfg.fp16': True,  # MMEngine's name for automatic mixed precision, bfloat16 on a CPU
}
