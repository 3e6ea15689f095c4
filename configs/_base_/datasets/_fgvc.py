# What the five few-shot FGVC sets share. Choose shots (1, 2, 4, 8, 16) and seed (0, 1, 2) with
# --cfg-options train_dataloader.dataset.shots=16 train_dataloader.dataset.seed=1
# Train on so many images a class, validate on nothing, test the final weights once on the lines of
# test_meta.list.
# To choose options, test on split='val' instead.
#
# Augmentations as in timm's create_transform and MMPretrain's Swin: RandAugment of magnitude 9,
# erasing 0.25, Mixup 0.8 or CutMix 1.0 a batch. The schedule of the same name adds label smoothing.
data_preprocessor = dict(
    num_classes=None,  # each set's file says
    default_normalize='imagenet',  # or data_preprocessor.normalize=half, none, imagenet
    to_rgb=True,
    batch_augments=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)

_mean_bgr = [103.53, 116.28, 123.675]
_std_bgr = [57.375, 57.12, 58.395]

# Sizes of None follow the backbone: 224 and, before the middle is cut out, 256 for vit-b.
train_pipeline = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='RandomResizedCrop', scale=None, backend='pillow', interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(
        type='RandAugment',
        policies='timm_increasing',
        num_policies=2,
        total_level=10,
        magnitude_level=9,
        magnitude_std=0.5,
        hparams=dict(pad_val=[round(value) for value in _mean_bgr], interpolation='bicubic'),
    ),
    dict(
        type='RandomErasing',
        erase_prob=0.25,
        mode='rand',
        min_area_ratio=0.02,
        max_area_ratio=1 / 3,
        fill_color=_mean_bgr,
        fill_std=_std_bgr,
    ),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='ResizeEdge', scale=None, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=None),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=64,
    num_workers=4,
    dataset=dict(
        type='FewShotFGVC',
        data_root=None,
        split='train',
        shots=1,
        seed=0,
        pipeline=train_pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
)

val_dataloader = None
val_cfg = None
val_evaluator = None

test_dataloader = dict(
    batch_size=128,
    num_workers=4,
    dataset=dict(type='FewShotFGVC', data_root=None, split='test', pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_cfg = dict()
test_evaluator = dict(type='Accuracy', topk=1)
