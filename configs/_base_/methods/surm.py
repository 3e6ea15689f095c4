# SURM (Sehanobish et al., 2024) with Toeplitz matrices on qkv: 55,260 parameters on ViT-B. The
# paper adapts CLIP and ViT-B on five image tasks.
method = dict(type='SURM', sites=['qkv'])
