# IA3 (Liu et al., 2022) by HF PEFT: scales keys, values and the FFN's hidden features. Here the
# queries share the Linear of keys and values, and are scaled too: 64,512 parameters on ViT-B.
method = dict(
    type='HFPeft',
    config=dict(peft_type='IA3', feedforward_modules=['fc2']),
    sites=['qkv', 'fc2'],
)
