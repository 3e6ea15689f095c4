# MoLA (Gao et al., 2024) with 2, 4, 6 and 8 experts of rank 8 in the quarters of the blocks, two
# for each token: 1,520,640 parameters on ViT-B's qkv. Published for language models, on all
# Linears, with a learning rate of 3e-4.
method = dict(type='MoLA', rank=8, experts=[2, 4, 6, 8])
