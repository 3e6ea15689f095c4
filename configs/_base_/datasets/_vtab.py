# What the 19 tasks of VTAB-1K share. The protocol: train on the 1,000 images of train800val200,
# validate on nothing, test the final weights once on the task's full test split. To choose options,
# train on train800 and validate on val200 instead, never on test.
#
# Images are read from data/vtab-1k, or from vtab-1k in the folder that GLEAM_DATA names.
# docs/data.md tells how they get there.
data_preprocessor = dict(
    num_classes=None,  # each task's file says
    # ImageNet statistics, unless the backbone's file says `normalize`, or `mean` and `std` are set.
    # Public codes differ; `data_preprocessor.normalize=half` is what the ImageNet-21k ViT saw,
    # `none` is no normalisation, and `imagenet` this.
    default_normalize='imagenet',
    to_rgb=True,
)

pipeline = [
    # Pillow refuses truncated files, which OpenCV fills with grey.
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    # None is the size of the backbone: 224 for vit-b.
    dict(type='Resize', scale=None, backend='pillow', interpolation='bicubic'),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    dataset=dict(
        type='VTAB1K',
        data_root=None,
        split='train800val200',
        cache=True,  # 1,000 images take 144 MiB, which the workers share
        pipeline=pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
)

val_dataloader = None
val_cfg = None
val_evaluator = None

test_dataloader = dict(
    batch_size=128,
    num_workers=4,
    # Read once, so not cached: up to 73,728 images would take 10 GiB.
    dataset=dict(type='VTAB1K', data_root=None, split='test', pipeline=pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_cfg = dict()
test_evaluator = dict(type='Accuracy', topk=1)
