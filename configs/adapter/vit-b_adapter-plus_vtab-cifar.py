_base_ = [
    '../_base_/backbones/vit-b.py',
    '../_base_/methods/adapter-plus.py',
    '../_base_/datasets/vtab-cifar.py',
    '../_base_/schedules/petl_100e.py',
    '../_base_/default_runtime.py',
]

model = dict(petl=_base_.method)
