# LoRETTA_adp (Yang et al., NAACL 2024) with bottlenecks of 64 and tensor rank 5: 55,488 parameters
# on ViT-B. Published for language models, which train their norms as well.
method = dict(type='LoRETTA', form='adp', rank=64, tensor_rank=5)
