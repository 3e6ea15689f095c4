# What the nine tasks of MiniVTAB share: train on 800, choose on 200, test once on the rest. To
# train the final model on both: `train_dataloader.dataset.split=train800val200`.
# RGB in memory; from -1 to 1, as vit-mini and swin-mini were pre-trained.
data_preprocessor = dict(
    num_classes=None,  # each task's file says
    default_normalize='half',
    to_rgb=False,
)

pipeline = [dict(type='PackInputs')]

train_dataloader = dict(
    batch_size=32,
    num_workers=0,  # the images are in memory already
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='MiniVTAB', split='train800', pipeline=pipeline),
)
val_dataloader = dict(
    batch_size=100,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='MiniVTAB', split='val200', pipeline=pipeline, test_mode=True),
)
test_dataloader = dict(
    batch_size=100,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='MiniVTAB', split='test', pipeline=pipeline, test_mode=True),
)
val_cfg = dict()
test_cfg = dict()
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator
