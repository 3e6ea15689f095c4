# HiRA (Huang et al., ICLR 2025) by HF PEFT: the weight times a low-rank matrix, number by number.
# 294,912 parameters on ViT-B with the rank of our LoRA (the paper's language models have 32).
method = dict(type='HFPeft', config=dict(peft_type='HIRA', r=8), sites=['qkv'])
