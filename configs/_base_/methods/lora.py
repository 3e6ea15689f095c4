# LoRA (Hu et al., 2021) of rank 8 on the fused qkv projections: 294,912 parameters on ViT-B, the
# setting of the paper's LoRA rows. The runs behind them had dropout of 0.1: `drop_rate=0.1`.
method = dict(type='LoRA', rank=8, alpha=8.0, sites=['qkv'])
