# PVeRA (Fillioux et al., 2025) by HF PEFT: VeRA whose narrow features are drawn from a distribution
# that is learned, and are its mean at evaluation: 33,792 parameters on ViT-B with rank and
# initialisation of our VeRA. The frozen projections come from a seed and are not saved.
method = dict(
    type='HFPeft',
    config=dict(peft_type='PVERA', r=256, d_initial=0.1, save_projection=False),
    sites=['qkv'],
)
