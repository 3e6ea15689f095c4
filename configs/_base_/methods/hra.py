# HRA (Yuan et al., NeurIPS 2024) by HF PEFT: a chain of 8 Householder reflections of the input, the
# paper's number: 73,728 parameters on ViT-B. Without its Gram-Schmidt orthogonalisation.
method = dict(type='HFPeft', config=dict(peft_type='HRA', r=8), sites=['qkv'])
