# ABBA (Singhal et al., 2025) of rank 4 + 4, the size of a LoRA of rank 8: 294,912 parameters on
# ViT-B's qkv. Published for language models, on all Linears.
method = dict(type='ABBA', rank=4, alpha=4.0)
