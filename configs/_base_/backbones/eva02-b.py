# EVA-02-B/14 of ImageNet-22k, without labels at 224, timm's class with its own pooling.
# Weights: timm's eva02_base_patch14_224.mim_in22k (MIT), behind `timm_model.`:
# `python tools/fetch_weights.py eva02-b` gets and converts them.
model = dict(
    type='PETLClassifier',
    backbone=dict(
        type='PooledTIMMBackbone',
        model_name='eva02_base_patch14_224.mim_in22k',
        img_size=224,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/eva02-b.safetensors'),
    ),
    neck=None,
    head=dict(type='LinearClsHead', in_channels=768, num_classes=None),
)
normalize = 'clip'  # what it was pretrained with
