# MoSA (Zhang et al., 2023) with a bottleneck of 64 in four parts: 1,189,632 parameters on ViT-B,
# the setting of AdaptFormer-64.
method = dict(type='MoSA', bottleneck=64, experts=4)
