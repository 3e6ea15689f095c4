# What the adapter beside it was trained with: six epochs of MiniVTAB, and no download.
_base_ = [
    'gleam_mm::_base_/backbones/vit-mini.py',
    'gleam_mm::_base_/methods/gleam-l.py',
    'gleam_mm::_base_/datasets/mini-textures.py',
    'gleam_mm::_base_/schedules/mini_6e.py',
    'gleam_mm::_base_/default_runtime.py',
]

model = dict(petl=_base_.method)
