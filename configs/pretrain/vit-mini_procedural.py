# Makes gleam_mm/weights/vit-mini.safetensors:
# `python tools/pretrain.py configs/pretrain/vit-mini_procedural.py`. Plain MMPretrain
# classification of drawn images; no image is seen twice.
_base_ = ['../_base_/default_runtime.py']

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='VisionTransformer',
        arch=dict(embed_dims=128, num_layers=8, num_heads=4, feedforward_channels=512),
        img_size=32,
        patch_size=4,
    ),
    head=dict(type='LinearClsHead', in_channels=128, num_classes=409),
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3, to_rgb=False),
)

pipeline = [dict(type='PackInputs')]
train_dataloader = dict(
    batch_size=64,
    num_workers=0,  # drawing takes less than a twentieth of a training step
    sampler=dict(type='FreshSampler'),
    dataset=dict(type='ProceduralImages', size=16384, seed=0, pipeline=pipeline),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='ProceduralImages', size=2048, seed=1, pipeline=pipeline),
)
val_cfg = dict()
val_evaluator = dict(type='Accuracy', topk=(1, 5))

optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='bfloat16',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(flat_decay_mult=0.0),  # no decay of biases and norms
    clip_grad=dict(max_norm=1.0),
)
train_cfg = dict(by_epoch=True, max_epochs=22, val_interval=1)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-2, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-6, begin=1, convert_to_iter_based=True),
]

default_hooks = dict(
    logger=dict(interval=64),
    checkpoint=dict(
        _delete_=True, type='CheckpointHook', interval=1, max_keep_ckpts=1, save_best=None
    ),
)
randomness = dict(seed=0)
