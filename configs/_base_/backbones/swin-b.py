# Swin-B at 224, window 7, MMPretrain's class. Weights: ImageNet-22k,
# `swin_base_patch4_window7_224_22k.pth` of https://github.com/microsoft/Swin-Transformer (timm:
# swin_base_patch4_window7_224.ms_in22k), with MMPretrain's key names:
# `python tools/fetch_weights.py swin-b` gets and converts them.
model = dict(
    type='PETLClassifier',
    backbone=dict(
        type='SwinTransformer',
        arch='base',
        img_size=224,
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/swin-b_in22k.safetensors'),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', in_channels=1024, num_classes=None),
)
# What it was pretrained with; recipes normalise as their datasets say, as the papers' codes do.
pretrained_normalize = 'imagenet'
