# DyLoRA (Valipour et al., EACL 2023) of ranks 1 to 8: 294,912 parameters on ViT-B.
# method.serve(rank) chooses a rank after training. Published for language only.
method = dict(type='DyLoRA', rank=8, alpha=8.0, sites=['qkv'])
