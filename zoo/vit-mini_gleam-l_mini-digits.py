# What the adapter beside it was trained with, by `make demo`; no download.
_base_ = [
    'gleam_mm::_base_/backbones/vit-mini.py',
    'gleam_mm::_base_/methods/gleam-l.py',
    'gleam_mm::_base_/datasets/mini-digits.py',
    'gleam_mm::_base_/schedules/mini.py',
    'gleam_mm::_base_/default_runtime.py',
]

model = dict(petl=_base_.method)
