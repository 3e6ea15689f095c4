# The paper's headline on the tasks of real-a.py, three times as long.
_base_ = '_real.py'
methods = ['gleam-t-9', 'lora-9']
datasets = ['real-cifar10', 'real-orientation']
variants = {
    f'{method}-9': {'method': method, 'train_cfg.max_epochs': 9, 'train_cfg.val_interval': 9}
    for method in ['gleam-t', 'lora']
}
