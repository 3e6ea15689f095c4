# What the tasks of MiniVTAB share here: the same scenes, drawn with 98 x 98 pixels.
# ImageNet's statistics, which DINOv2 was trained with.
data_preprocessor = dict(
    num_classes=None,  # each task's file says
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=False,
)

pipeline = [dict(type='PackInputs')]

train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='MiniVTAB', img_size=98, split='train800val200', pipeline=pipeline),
)
val_dataloader = dict(
    batch_size=100,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='MiniVTAB', img_size=98, split='val200', pipeline=pipeline),
)
test_dataloader = dict(
    batch_size=100,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='MiniVTAB', img_size=98, split='test', pipeline=pipeline),
)
val_cfg = dict()
test_cfg = dict()
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator
