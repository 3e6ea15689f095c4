# AdaLink (Wang et al., 2023) of rank 8: 12,288 parameters on ViT-B. Published for language, and for
# images with text.
method = dict(type='AdaLink', rank=8)
