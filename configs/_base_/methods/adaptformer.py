# AdaptFormer (Chen et al., 2022) with a bottleneck of 8: 156,768 parameters on ViT-B, the setting
# of the paper's AdaptFormer row. The official code has 64 by default; scale and dropout are its.
# On VTAB-1K the scale is chosen for each task there (1 for ten of 19), and no drop path is used:
# `model.backbone.drop_path_rate=0`.
method = dict(type='AdaptFormer', bottleneck=8, scale=0.1, drop_rate=0.1)
