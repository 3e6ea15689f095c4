# ViT-S/14 of DINOv2 at 224, timm's class with its own pooling. Positions are
# resampled from those of 37 x 37 patches.
# Weights: timm's vit_small_patch14_dinov2.lvd142m (Apache-2.0), behind `timm_model.`:
# `python tools/fetch_weights.py vit-s-dinov2` gets and converts them.
model = dict(
    type='PETLClassifier',
    backbone=dict(
        type='PooledTIMMBackbone',
        model_name='vit_small_patch14_dinov2.lvd142m',
        img_size=224,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/vit-s-dinov2.safetensors'),
    ),
    neck=None,
    head=dict(type='LinearClsHead', in_channels=384, num_classes=None),
)
