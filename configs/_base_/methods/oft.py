# OFT (Qiu et al., 2023) by HF PEFT, with its default blocks of 32 x 32, on the Linears of the
# attention as in the paper: 285,696 parameters on ViT-B.
method = dict(
    type='HFPeft',
    config=dict(peft_type='OFT', r=0, oft_block_size=32),
    sites=['qkv', 'proj'],
)
