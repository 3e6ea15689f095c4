# LoRA from the smallest singular values (MiLoRA; Wang et al., NAACL 2025): 294,912 parameters on
# ViT-B. The file holds the start too.
method = dict(type='LoRA', rank=8, alpha=8.0, sites=['qkv'], init='milora')
