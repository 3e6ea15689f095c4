# SSF (Lian et al., 2022): 205,824 parameters on ViT-B. The spread of the initial scales and shifts
# is that of the official code, which starts beside the pretrained model; std=0 starts from it.
method = dict(type='SSF', std=0.02)
