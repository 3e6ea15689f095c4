# FacT in its Tucker form (Jie and Deng, 2023), rank 32: 86,528 parameters on ViT-B. The official
# code has a rank and a scale for each task, and dropout: choose both on the validation split.
method = dict(type='FacT', form='tk', rank=32, alpha=1.0)
