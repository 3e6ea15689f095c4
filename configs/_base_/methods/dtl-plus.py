# DTL+ (Fu, Zhu and Wu, AAAI 2024): DTL with a depthwise 5x5 convolution that all blocks share:
# 56,064 parameters on ViT-B. The rest as in dtl.py.
method = dict(type='DTL', rank=2, kernel=5)
