# SwinV2-B at 256, window 16, of ImageNet-22k and -1k, timm's class with its own pooling.
# Weights: timm's swinv2_base_window12to16_192to256.ms_in22k_ft_in1k (MIT), behind `timm_model.`:
# `python tools/fetch_weights.py swinv2-b` gets and converts them.
model = dict(
    type='PETLClassifier',
    backbone=dict(
        type='PooledTIMMBackbone',
        model_name='swinv2_base_window12to16_192to256.ms_in22k_ft_in1k',
        img_size=256,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/swinv2-b.safetensors'),
    ),
    neck=None,
    head=dict(type='LinearClsHead', in_channels=1024, num_classes=None),
)
