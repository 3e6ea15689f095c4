# DTL (Fu, Zhu and Wu, AAAI 2024) of rank 2, which returns behind the 7th to 12th block: 36,864
# parameters on ViT-B. The official code: AdamW, learning rate 3e-4 or 5e-4, weight decay 0.05, drop
# path 0.1 in the backbone, the mean of the patches in front of the head, 100 epochs. Swin-B has
# rank 4 there and start=14.
method = dict(type='DTL', rank=2)
