# ViT-B/16 at 224, MMPretrain's class. Weights: ImageNet-21k, `ViT-B_16.npz` of
# https://github.com/google-research/vision_transformer (timm: vit_base_patch16_224.orig_in21k),
# with MMPretrain's key names: `python tools/fetch_weights.py vit-b` gets and converts them.
model = dict(
    type='PETLClassifier',
    backbone=dict(
        type='VisionTransformer',
        arch='b',
        img_size=224,
        patch_size=16,
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/vit-b_in21k.safetensors'),
    ),
    neck=None,
    head=dict(type='LinearClsHead', in_channels=768, num_classes=None),
)
# What it was pretrained with; recipes normalise as their datasets say, as the papers' codes do.
pretrained_normalize = 'half'
