# MiSS (Kang and Yin, 2024) by HF PEFT: one small matrix a Linear, repeated over its inputs: 221,184
# parameters on ViT-B with the rank of our LoRA (the paper's language models have 64).
method = dict(type='HFPeft', config=dict(peft_type='MISS', r=8), sites=['qkv'])
