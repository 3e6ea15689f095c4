# Hydra (Kim et al., 2023) of rank 2 on proj and fc2: 239,712 parameters on ViT-B. The official code
# chooses the scale for each VTAB task, from 0.1 to 4.5, and dropout in 0, 0.1, 0.2, on top of a
# drop path of 0.1 in the backbone; AdamW, learning rate 5e-4 or 1e-3, weight decay 1e-4, 100
# epochs.
method = dict(type='Hydra', rank=2, scale=1.0, drop_rate=0.0)
