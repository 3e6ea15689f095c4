# CoDA (Lei et al., NeurIPS 2023) with a bottleneck of 16 and a quarter of the patches at every FFN:
# 313,548 parameters on ViT-B. Published for T5, speech, and Pix2Struct, with a third to a fifth of
# the tokens at attention and FFN.
method = dict(type='CoDA', bottleneck=16, rate=0.25)
