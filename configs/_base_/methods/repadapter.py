# RepAdapter (Luo et al., 2023) of width 8 with 2 groups, in front of attention and FFN: 239,808
# parameters on ViT-B. The official code searches the scale in {0.1, 0.5, 1, 5, 10} for each task:
# choose it on the validation split. Dropout as there.
method = dict(type='RepAdapter', rank=8, groups=2, scale=1.0, drop_rate=0.1)
