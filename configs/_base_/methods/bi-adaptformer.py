# Bi-AdaptFormer (Jie et al., ICCV 2023): AdaptFormer with weights of one bit: 589,824 of them on
# ViT-B at the paper's bottleneck of 32, which are 72 KiB in the adapter file. The official code, on
# VTAB-1K: dropout 0.1, no biases, AdamW, lr 1e-3, weight decay 1e-4, 100 epochs of which 10 warm
# up, inputs that are not normalised, and a scale for each task.
method = dict(type='AdaptFormer', bottleneck=32, scale=1.0, drop_rate=0.1, bits=1, bias=False)
