# The few-shot recipe of public PETL codes: as petl_100e, with a higher rate and label smoothing.
# The augmentations are in configs/_base_/datasets/_fgvc.py.
_base_ = 'petl_100e.py'

optim_wrapper = dict(optimizer=dict(lr=5e-3))

# Becomes model.head.loss.
head_loss = dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original')

auto_scale_lr = dict(base_batch_size=64, enable=False)
