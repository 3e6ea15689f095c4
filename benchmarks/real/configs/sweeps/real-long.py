# The paper's headline where it fails by most, twice as long.
_base_ = '_real.py'
methods = ['gleam-t-6', 'lora-6']
datasets = ['real-orientation']
variants = {
    f'{method}-6': {'method': method, 'train_cfg.max_epochs': 6, 'train_cfg.val_interval': 6}
    for method in ['gleam-t', 'lora']
}
