# Makes gleam_mm/weights/swin-mini.safetensors:
# `python tools/pretrain.py configs/pretrain/swin-mini_procedural.py`. As for vit-mini, but for
# fewer images: locality need not be learnt.
_base_ = ['vit-mini_procedural.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='SwinTransformer',
        arch=dict(embed_dims=48, depths=[2, 2, 6], num_heads=[3, 6, 12]),
        img_size=32,
        patch_size=2,
        window_size=4,
        out_indices=(2,),
        drop_path_rate=0.0,
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(in_channels=192),
)
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys={'relative_position_bias_table': dict(decay_mult=0.0)})
)
train_cfg = dict(max_epochs=16)
