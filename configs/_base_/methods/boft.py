# BOFT (Liu et al., ICLR 2024) by HF PEFT, with its default blocks of 4 x 4 and one butterfly
# factor: 64,512 parameters on ViT-B.
method = dict(
    type='HFPeft',
    config=dict(peft_type='BOFT', boft_block_size=4, boft_n_butterfly_factor=1),
    sites=['qkv'],
)
