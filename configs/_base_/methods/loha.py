# LoHa (LyCORIS, Yeh et al., 2024; FedPara, Hyeon-Woo et al., 2022) by HF PEFT, with its default
# rank and alpha: the product, number by number, of two updates of rank 8.
method = dict(
    type='HFPeft',
    config=dict(peft_type='LOHA', r=8, alpha=8),
    sites=['qkv', 'proj', 'fc1', 'fc2'],
)
