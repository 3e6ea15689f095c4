# ViT-B/16 at 224, timm's class. Weights: ImageNet-21k, timm's vit_base_patch16_224.orig_in21k, with
# the keys of MMPretrain's TIMMBackbone, timm's behind `timm_model.`, without a head:
# `python tools/fetch_weights.py timm-vit-b` gets and converts them.
model = dict(
    type='PETLClassifier',
    backbone=dict(
        type='TIMMBackbone',
        model_name='vit_base_patch16_224',
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/timm-vit-b_in21k.safetensors'),
    ),
    neck=dict(type='TokenPool', mode='cls'),
    head=dict(type='LinearClsHead', in_channels=768, num_classes=None),
)
# What it was pretrained with; recipes normalise as their datasets say, as the papers' codes do.
pretrained_normalize = 'half'
