# FourierFT (Gao et al., ICML 2024) by HF PEFT: 3,000 coefficients of an update's spectrum a Linear,
# scaled by 300, as in the paper's image classification: 36,000 parameters on ViT-B. They start at
# zero, so that the model starts as the pretrained one (PEFT: a normal variable). The paper adapts
# queries and values; here the keys share their Linear.
method = dict(
    type='HFPeft',
    config=dict(peft_type='FOURIERFT', n_frequency=3000, scaling=300.0, init_weights=True),
    sites=['qkv'],
)
