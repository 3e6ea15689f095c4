# MoKA (Sadeghi et al., 2025): four Kronecker products of a 32 x 32 matrix each, and their gate:
# 132,144 parameters on ViT-B's qkv. Published for language models.
method = dict(type='Kronecker', number=4, size=32, gate=True)
