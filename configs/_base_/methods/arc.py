# ARC (Dong et al., NeurIPS 2023) of rank 50 in front of attention and FFN: 96,432 parameters on
# ViT-B. Rank and dropout are the official code's; it trains with AdamW at a learning rate of 1e-2.
method = dict(type='ARC', rank=50, drop_rate=0.1)
