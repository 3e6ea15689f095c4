# LoRA (Hu et al., 2021) of rank 8 on the fused qkv projections: 294,912 parameters on ViT-B, the
# setting of the paper's LoRA rows. The runs behind them had dropout of 0.1 (`drop_rate=0.1`), and
# both matrices started at N(0, 0.02), so that they did not start as the pretrained model; here A
# starts as PyTorch's Linears and B at zero, and no option has both at random.
method = dict(type='LoRA', rank=8, alpha=8.0, sites=['qkv'])
