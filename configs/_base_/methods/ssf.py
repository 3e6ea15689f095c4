# SSF (Lian et al., 2022): 205,824 parameters on ViT-B. The spread of the initial scales and shifts
# is that of the official code, which starts beside the pretrained model; std=0 starts from it.
# The official code has no weight decay on scales and shifts:
# `optim_wrapper.paramwise_cfg.custom_keys.petl.decay_mult=0`. Those of the patch embedding have
# three axes, so that `flat_decay_mult` would not reach them.
method = dict(type='SSF', std=0.02)
