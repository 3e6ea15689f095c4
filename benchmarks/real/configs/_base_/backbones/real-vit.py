# DINOv2's ViT-S/14, timm's class, its first blocks at 98 x 98: 7 x 7 patches and the class token.
# ../../../probe.py tells how many blocks; ../../../prepare.py makes the file. No drop path.
model = dict(
    type='PETLClassifier',
    backbone=dict(
        type='TIMMBackbone',
        model_name='vit_small_patch14_dinov2',
        img_size=98,
        depth=10,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/real-vit-10.safetensors'),
    ),
    neck=dict(type='TokenPool', mode='cls'),
    head=dict(type='LinearClsHead', in_channels=384, num_classes=None),
)
