# ViT-B/16 of CLIP, OpenAI's, at 224: timm's class with its own pooling.
# Weights: timm's vit_base_patch16_clip_224.openai (Apache-2.0), behind `timm_model.`:
# `python tools/fetch_weights.py vit-b-clip` gets and converts them.
model = dict(
    type='PETLClassifier',
    backbone=dict(
        type='PooledTIMMBackbone',
        model_name='vit_base_patch16_clip_224.openai',
        img_size=224,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/vit-b-clip.safetensors'),
    ),
    neck=None,
    head=dict(type='LinearClsHead', in_channels=768, num_classes=None),
)
normalize = 'clip'  # what it was pretrained with
