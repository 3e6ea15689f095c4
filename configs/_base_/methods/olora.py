# LoRA from a QR decomposition of the weight (OLoRA; Büyükakyüz, 2024): 294,912 parameters on ViT-B.
# The file holds the start too.
method = dict(type='LoRA', rank=8, alpha=8.0, sites=['qkv'], init='olora')
