# VeRA (Kopiczko et al., 2024) by HF PEFT, rank 256 as in the paper's image classification, and
# PEFT's initialisation of 0.1: 30,720 parameters on ViT-B. The paper adapts queries and values;
# here the keys share their Linear. The frozen projections come from a seed and are not saved.
method = dict(
    type='HFPeft',
    config=dict(peft_type='VERA', r=256, d_initial=0.1, save_projection=False),
    sites=['qkv'],
)
