# SHiRA (Bhardwaj et al., NeurIPS 2024) by HF PEFT: 1.4 % of the weights, at random places, learn:
# 294,912 parameters on ViT-B, as many as of our LoRA. The places come from a seed and are not
# saved; torch.compile cannot trace them. Places of large weights or gradients: neuroada and gps.
method = dict(
    type='HFPeft',
    config=dict(peft_type='SHIRA', r=8, mask_type='random', random_seed=0),
    sites=['qkv'],
)
