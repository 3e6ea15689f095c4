# RLRR (Dong et al., CVPR 2024): 285,696 parameters on ViT-B. The official code trains with AdamW,
# at a learning rate from 1e-3 to 3e-3 and a weight decay of 5e-5, for 100 epochs.
method = dict(type='RLRR')
