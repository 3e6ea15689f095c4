# RoAd (Liao et al., NeurIPS 2024) by HF PEFT: rotates and scales pairs of the output's channels, on
# all Linears as in the paper: 82,944 parameters on ViT-B. RoAd_1, its smallest form, in PEFT's
# groups of 64, of which all widths are multiples.
method = dict(
    type='HFPeft',
    config=dict(peft_type='ROAD', variant='road_1', group_size=64),
    sites=['qkv', 'proj', 'fc1', 'fc2'],
)
