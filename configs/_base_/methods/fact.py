# FacT in its tensor-train form (Jie and Deng, 2023), rank 16: 61,440 parameters on ViT-B. The
# official code has a rank and a scale for each task: choose both on the validation split. Its local
# transforms start as PyTorch's Linears (`local_init='uniform'`) and it has dropout of 0.1 before B
# (`drop_rate=0.1`); here they start as the identity, and there is none.
method = dict(type='FacT', rank=16, alpha=1.0)
