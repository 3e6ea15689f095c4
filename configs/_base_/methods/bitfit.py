# BitFit (Ben Zaken et al., 2022): every bias of the backbone is trained, those of the norms and of
# the patch embedding too: 102,912 parameters on ViT-B. On Swin-B, with the relative position biases
# of its windows, 200,760.
# Biases have no weight decay in most codes:
# `optim_wrapper.paramwise_cfg.custom_keys.backbone.decay_mult=0`.
method = dict(type='BitFit')
