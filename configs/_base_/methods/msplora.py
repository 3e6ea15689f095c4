# MSPLoRA (Zhao et al., 2025) with ranks 4, 2 and 1 for the network, its thirds and its blocks:
# 67,584 parameters on ViT-B. Published for language only.
method = dict(type='MSPLoRA', ranks=[4, 2, 1], sites=['qkv'])
