# The Swin that ships with the package: 32 x 32 pixels, patches of 2, windows of 4, three stages,
# 3.0 M parameters, pre-trained on drawn images, RGB from -1 to 1, by
# configs/pretrain/swin-mini_procedural.py. See gleam_mm/weights/README.md.
model = dict(
    type='PETLClassifier',
    backbone=dict(
        type='SwinTransformer',
        arch=dict(embed_dims=48, depths=[2, 2, 6], num_heads=[3, 6, 12]),
        img_size=32,
        patch_size=2,
        window_size=4,
        out_indices=(2,),
        drop_path_rate=0.0,
        init_cfg=dict(
            type='Pretrained', checkpoint='gleam_mm://weights/swin-mini.safetensors', prefix=''
        ),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', in_channels=192, num_classes=None),
)
normalize = 'half'  # what it was pretrained with
