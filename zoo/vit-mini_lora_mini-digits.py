# What the adapter beside it was trained with: six epochs of MiniVTAB, and no download.
_base_ = [
    'gleam_mm::_base_/backbones/vit-mini.py',
    'gleam_mm::_base_/methods/lora.py',
    'gleam_mm::_base_/datasets/mini-digits.py',
    'gleam_mm::_base_/schedules/mini_6e.py',
    'gleam_mm::_base_/default_runtime.py',
]

model = dict(petl=_base_.method)
optim_wrapper = dict(optimizer=dict(lr=3e-3))  # the best of the sweep minivtab-rates on val200
