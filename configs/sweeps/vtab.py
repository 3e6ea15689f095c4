# GLEAM and its baselines on VTAB-1K with ViT-B/16, as the paper's Table 1: options are chosen for
# each task on the validation split, every method by 20 trials. `--methods` takes others too.
#     python tools/sweep.py run vtab --workers 2 --gpus 0,1
#
# A grid of the command line is every method's instead:
#     --name vtab-rates --grid optim_wrapper.optimizer.lr=0.001,0.003,0.01                  3 trials
#     --name vtab-paper --methods 'gleam-*' --grid alpha=0.01,0.1,1,10,100 top_k=1,2,3     15 trials
backbone = 'vit-b'
methods = ['linear', 'lora', 'gleam-t', 'gleam-b', 'gleam-l']
datasets = ['vtab']
seeds = 3
grids = {
    # The paper's scales and numbers of experts, and the presets' four, at the schedule's rate:
    # where updates start at zero, a scale moves them under AdamW much as a rate does.
    'gleam-*': {'alpha': [0.01, 0.1, 1, 10, 100], 'top_k': [1, 2, 3, 4]},
    # The same five scales by four rates. LoRA's is alpha / rank, of rank 8.
    'lora': {
        'alpha': [0.08, 0.8, 8, 80, 800],
        'optim_wrapper.optimizer.lr': [3e-4, 1e-3, 3e-3, 1e-2],
    },
    **dict.fromkeys(
        ('slora', 'fact*'),
        {
            'alpha': [0.01, 0.1, 1, 10, 100],
            'optim_wrapper.optimizer.lr': [3e-4, 1e-3, 3e-3, 1e-2],
        },
    ),
    **dict.fromkeys(
        ('adaptformer', 'convpass', 'repadapter'),
        {
            'scale': [0.01, 0.1, 1, 10, 100],
            'optim_wrapper.optimizer.lr': [3e-4, 1e-3, 3e-3, 1e-2],
        },
    ),
    # Five of the six numbers that VPT's paper tries, by four rates.
    'vpt-*': {
        'num_prompts': [5, 10, 50, 100, 200],
        'optim_wrapper.optimizer.lr': [3e-4, 1e-3, 3e-3, 1e-2],
    },
}
# All others: 20 rates, five a decade.
grid = {
    'optim_wrapper.optimizer.lr': [
        *(1e-5, 1.6e-5, 2.5e-5, 4e-5, 6.3e-5),
        *(1e-4, 1.6e-4, 2.5e-4, 4e-4, 6.3e-4),
        *(1e-3, 1.6e-3, 2.5e-3, 4e-3, 6.3e-3),
        *(1e-2, 1.6e-2, 2.5e-2, 4e-2, 6.3e-2),
    ]
}
variants = {
    # No decay where the official code has none.
    'ssf': {'optim_wrapper.paramwise_cfg': dict(custom_keys={'petl': dict(decay_mult=0.0)})},
    'bitfit': {'optim_wrapper.paramwise_cfg': dict(custom_keys={'backbone': dict(decay_mult=0.0)})},
    # The paper trains "following Chavan et al.": the rate and the epochs of their code.
    **{
        f'chavan-{method}': {
            'method': method,
            'optim_wrapper.optimizer.lr': 1e-4,
            'train_cfg.max_epochs': 500,
        }
        for method in ('gleam-t', 'gleam-b', 'gleam-l')
    },
}
