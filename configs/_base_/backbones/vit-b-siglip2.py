# ViT-B/16 of SigLIP 2 at 224, timm's class with its own pooling: attention pools.
# Weights: timm's vit_base_patch16_siglip_224.v2_webli (Apache-2.0), behind `timm_model.`:
# `python tools/fetch_weights.py vit-b-siglip2` gets and converts them.
model = dict(
    type='PETLClassifier',
    backbone=dict(
        type='PooledTIMMBackbone',
        model_name='vit_base_patch16_siglip_224.v2_webli',
        img_size=224,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/vit-b-siglip2.safetensors'),
    ),
    neck=None,
    head=dict(type='LinearClsHead', in_channels=768, num_classes=None),
)
normalize = 'half'  # what it was pretrained with
