# LoRA with a frozen A of orthonormal rows (Zhu et al., ICML 2024): 221,184 parameters on ViT-B. The
# file holds A too.
method = dict(type='LoRA', rank=8, alpha=8.0, sites=['qkv'], init='orthogonal', train_down=False)
