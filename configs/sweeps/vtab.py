# GLEAM and its baselines on VTAB-1K with ViT-B/16, the protocol of the paper's Table 1: alpha and k
# are chosen for each task on the validation split; methods without them have no grid.
#     python tools/sweep.py run vtab --workers 2 --gpus 0,1
backbone = 'vit-b'
methods = ['linear', 'lora', 'gleam-t', 'gleam-b', 'gleam-l']
datasets = ['vtab']
grid = dict(alpha=[0.01, 0.1, 1, 10, 100], top_k=[1, 2, 3])
seeds = 3
