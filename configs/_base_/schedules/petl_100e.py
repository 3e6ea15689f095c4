# The recipe that most public PETL codes share: AdamW, learning rate 1e-3, weight decay 1e-4, 100
# epochs of which 10 warm up, cosine. The GLEAM paper names AdamW, cosine and warm-up, "following
# Chavan et al.", and no numbers; their code has 1e-4 and 500 epochs: `chavan-gleam-l` in the sweep
# of VTAB-1K (docs/sweeps.md).
# Gradients are clipped, which those codes do not do: clipped, none of GLEAM's trainings at 1e-2 has
# ended at chance on MiniVTAB (docs/gleam.md). `optim_wrapper.clip_grad=None` does without.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=1e-4),
    clip_grad=dict(max_norm=1.0),
)

# The rate changes at every iteration. The cosine ends where the training ends.
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-3,
        by_epoch=True,
        begin=0,
        end=10,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR', eta_min=0.0, by_epoch=True, begin=10, convert_to_iter_based=True
    ),
]

train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=1)

# `--auto-scale-lr` scales the rate by (batch size x processes) / base_batch_size.
auto_scale_lr = dict(base_batch_size=32, enable=False)
