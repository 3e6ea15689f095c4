# FacT in its Tucker form (Jie and Deng, 2023), rank 32: 86,528 parameters on ViT-B. The official
# code has a rank and a scale for each task: choose both on the validation split. It has dropout of
# 0.1 before B (`drop_rate=0.1`). Its fc1 and fc2 have the channels of their four blocks in another
# order, so that its checkpoints do not carry over (docs/methods.md).
method = dict(type='FacT', form='tk', rank=32, alpha=1.0)
