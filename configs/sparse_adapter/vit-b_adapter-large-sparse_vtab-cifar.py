# SparseAdapter in its form "Large-Sparse" (He et al., EMNLP 2022): adapters of four times the
# width, of which three quarters are pruned at the start.
_base_ = [
    '../_base_/backbones/vit-b.py',
    '../_base_/datasets/vtab-cifar.py',
    '../_base_/schedules/petl_100e.py',
    '../_base_/default_runtime.py',
]

model = dict(petl=dict(type='Adapter', bottleneck=32, sites=['fc2']))
custom_hooks = [dict(type='SparseAdapterHook', sparsity=0.75)]
