# Swin-B at 224, window 7, timm's class. Weights: ImageNet-22k, timm's
# swin_base_patch4_window7_224.ms_in22k, with the keys of MMPretrain's TIMMBackbone, timm's behind
# `timm_model.`, without a head: `python tools/fetch_weights.py timm-swin-b` gets and converts them.
model = dict(
    type='PETLClassifier',
    backbone=dict(
        type='TIMMBackbone',
        model_name='swin_base_patch4_window7_224',
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/timm-swin-b_in22k.safetensors'),
    ),
    neck=dict(type='TokenPool', mode='mean'),
    head=dict(type='LinearClsHead', in_channels=1024, num_classes=None),
)
# What it was pretrained with; recipes normalise as their datasets say, as the papers' codes do.
pretrained_normalize = 'imagenet'
