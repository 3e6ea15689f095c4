# ViT-B/16 of MAE at 224, timm's class with its own pooling: the class token pools.
# Weights: timm's vit_base_patch16_224.mae (CC-BY-NC-4.0), behind `timm_model.`:
# `python tools/fetch_weights.py vit-b-mae` gets and converts them.
model = dict(
    type='PETLClassifier',
    backbone=dict(
        type='PooledTIMMBackbone',
        model_name='vit_base_patch16_224.mae',
        img_size=224,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/vit-b-mae.safetensors'),
    ),
    neck=None,
    head=dict(type='LinearClsHead', in_channels=768, num_classes=None),
)
