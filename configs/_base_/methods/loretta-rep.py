# LoRETTA_rep (Yang et al., NAACL 2024) of rank 8 and tensor rank 5: 16,800 parameters on ViT-B's
# qkv. Published for language models, which train their norms as well.
method = dict(type='LoRETTA', form='rep', rank=8, tensor_rank=5)
