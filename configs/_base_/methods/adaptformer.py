# AdaptFormer (Chen et al., 2022) with a bottleneck of 8: 156,768 parameters on ViT-B, the setting
# of the paper's AdaptFormer row. The official code has 64 by default; scale and dropout are its.
method = dict(type='AdaptFormer', bottleneck=8, scale=0.1, drop_rate=0.1)
