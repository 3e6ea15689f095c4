# A folder of images: `<data_root>/train/<class>/*.jpg` and `<data_root>/val/<class>/*.jpg`. The
# classes are the names of the folders.
data_preprocessor = dict(
    num_classes=None,  # read from the training folder
    # Unless the backbone's file says `normalize`; `mean` and `std` win over both.
    default_normalize='imagenet',
    to_rgb=True,
)

# Sizes of None follow the backbone: 224 and, before the middle is cut out, 256 for vit-b.
train_pipeline = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='RandomResizedCrop', scale=None, backend='pillow', interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='ResizeEdge', scale=None, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=None),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    dataset=dict(
        type='CustomDataset', data_root='data/folder', data_prefix='train', pipeline=train_pipeline
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
)

val_dataloader = dict(
    batch_size=128,
    num_workers=4,
    dataset=dict(
        type='CustomDataset',
        data_root='data/folder',
        data_prefix='val',
        pipeline=test_pipeline,
        test_mode=True,
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_cfg = dict()
val_evaluator = dict(type='Accuracy', topk=1)

# Without a test folder the final weights are evaluated on val. With one, set data_prefix='test'.
test_dataloader = val_dataloader
test_cfg = val_cfg
test_evaluator = val_evaluator
