# LoKr (LyCORIS, Yeh et al., 2024) by HF PEFT, with its default rank and alpha: updates that are
# Kronecker products.
method = dict(
    type='HFPeft',
    config=dict(peft_type='LOKR', r=8, alpha=8),
    sites=['qkv', 'proj', 'fc1', 'fc2'],
)
