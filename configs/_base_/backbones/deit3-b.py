# DeiT III-B/16 of ImageNet-22k and -1k at 224, timm's class with its own pooling.
# Weights: timm's deit3_base_patch16_224.fb_in22k_ft_in1k (Apache-2.0), behind `timm_model.`:
# `python tools/fetch_weights.py deit3-b` gets and converts them.
model = dict(
    type='PETLClassifier',
    backbone=dict(
        type='PooledTIMMBackbone',
        model_name='deit3_base_patch16_224.fb_in22k_ft_in1k',
        img_size=224,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/deit3-b.safetensors'),
    ),
    neck=None,
    head=dict(type='LinearClsHead', in_channels=768, num_classes=None),
)
