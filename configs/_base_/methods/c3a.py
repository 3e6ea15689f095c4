# C3A (Chen et al., 2024) by HF PEFT: circular convolutions, in blocks of 128, which are the paper's
# 768/6 and divide all widths of Swin-B: 165,888 parameters on ViT-B. The kernels start at zero, so
# that the model starts as the pretrained one (PEFT: Xavier's initialisation).
method = dict(
    type='HFPeft',
    config=dict(peft_type='C3A', block_size=128, init_weights=True),
    sites=['qkv'],
)
