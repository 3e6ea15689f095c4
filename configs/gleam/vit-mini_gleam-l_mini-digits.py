_base_ = [
    '../_base_/backbones/vit-mini.py',
    '../_base_/methods/gleam-l.py',
    '../_base_/datasets/mini-digits.py',
    '../_base_/schedules/mini.py',
    '../_base_/default_runtime.py',
]

model = dict(petl=_base_.method)
