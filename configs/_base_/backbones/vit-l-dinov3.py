# ViT-L/16 of DINOv3 at 224, timm's class with its own pooling: positions are rotary.
# Weights: timm's vit_large_patch16_dinov3.lvd1689m (Meta's DINOv3 licence), behind `timm_model.`:
# `python tools/fetch_weights.py vit-l-dinov3` gets and converts them.
model = dict(
    type='PETLClassifier',
    backbone=dict(
        type='PooledTIMMBackbone',
        model_name='vit_large_patch16_dinov3.lvd1689m',
        img_size=224,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/vit-l-dinov3.safetensors'),
    ),
    neck=None,
    head=dict(type='LinearClsHead', in_channels=1024, num_classes=None),
)
