# Convpass (Jie and Deng, 2022) with a bottleneck of 8, beside attention and FFN: 327,552 parameters
# on ViT-B. The official code has a scale for each task: choose it on the validation split. Dropout
# as there. Half of its tasks of VTAB-1K start the convolution at Xavier's values instead of the
# identity: `conv_init='xavier'`.
method = dict(type='Convpass', bottleneck=8, scale=1.0, drop_rate=0.1)
