# The ViT that ships with the package: 32 x 32 pixels, patches of 4, 1.6 M parameters, pre-trained
# on drawn images, RGB from -1 to 1, by configs/pretrain/vit-mini_procedural.py. See
# gleam_mm/weights/README.md.
model = dict(
    type='PETLClassifier',
    backbone=dict(
        type='VisionTransformer',
        arch=dict(embed_dims=128, num_layers=8, num_heads=4, feedforward_channels=512),
        img_size=32,
        patch_size=4,
        init_cfg=dict(
            type='Pretrained', checkpoint='gleam_mm://weights/vit-mini.safetensors', prefix=''
        ),
    ),
    neck=None,
    head=dict(type='LinearClsHead', in_channels=128, num_classes=None),
)
normalize = 'half'  # what it was pretrained with
