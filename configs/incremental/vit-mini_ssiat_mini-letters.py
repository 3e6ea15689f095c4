# SSIAT on the 26 letters of MiniVTAB in ten sessions, with the paper's settings where a small ViT
# takes them: AdaptFormer of width 64, SGD, 20 epochs first and 10 for each session that follows.
# Run it with `gleam-mm incremental configs/incremental/vit-mini_ssiat_mini-letters.py`.
_base_ = [
    '../_base_/backbones/vit-mini.py',
    '../_base_/datasets/mini-letters.py',
    '../_base_/default_runtime.py',
]
model = dict(
    petl=dict(type='AdaptFormer', bottleneck=64),
    head=dict(type='CosineClsHead', scale=20.0),
)
train_dataloader = dict(batch_size=48, dataset=dict(split='train800val200'))
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=5e-4),
)
train_cfg = dict(by_epoch=True, max_epochs=20)
incremental = dict(sessions=10)
