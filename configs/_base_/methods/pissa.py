# LoRA from the largest singular values (PiSSA; Meng et al., NeurIPS 2024): 294,912 parameters on
# ViT-B. alpha equals the rank there. The file holds the start too.
method = dict(type='LoRA', rank=8, alpha=8.0, sites=['qkv'], init='pissa')
