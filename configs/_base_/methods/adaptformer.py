# AdaptFormer (Chen et al., 2022) with a bottleneck of 8: 156,768 parameters on ViT-B, the setting
# of the paper's AdaptFormer row. Its authors prefer 64; the dropout of 0.1 is in their code only.
method = dict(type='AdaptFormer', bottleneck=8, scale=0.1, drop_rate=0.1)
