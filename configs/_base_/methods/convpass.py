# Convpass (Jie and Deng, 2022) with a bottleneck of 8, beside attention and FFN: 327,552 parameters
# on ViT-B. The scale is chosen for each task: choose it on the validation split. The dropout of 0.1
# is in the official code only.
method = dict(type='Convpass', bottleneck=8, scale=1.0, drop_rate=0.1)
