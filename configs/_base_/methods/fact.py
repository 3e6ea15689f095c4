# FacT in its tensor-train form (Jie and Deng, 2023), rank 16: 61,440 parameters on ViT-B.
method = dict(type='FacT', rank=16, alpha=1.0)
