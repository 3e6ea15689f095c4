# DyT (Zhao et al., NeurIPS 2024) with a bottleneck of 16 and half of the patches at every FFN:
# 313,548 parameters on ViT-B. The official code, on VTAB-1K: AdamW, base learning rate 0.1 (times
# the batch of 64, by 256), 100 epochs, rate 0.5 with weight 2, temperature 5, dropout 0.1; and a
# second pass without gates, which is distilled, and is not here.
method = dict(type='DyT', bottleneck=16, rate=0.5)
