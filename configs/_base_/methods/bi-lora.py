# Bi-LoRA (Jie et al., ICCV 2023): LoRA of rank 32 with matrices of one bit: 1,179,648 of them on
# ViT-B, which are 144 KiB in the adapter file. The paper adapts queries and values; here the keys
# share their Linear. Settings as of Bi-AdaptFormer.
method = dict(type='LoRA', rank=32, alpha=32.0, drop_rate=0.1, sites=['qkv'], bits=1)
