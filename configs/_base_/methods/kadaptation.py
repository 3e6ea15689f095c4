# KAdaptation (He et al., AAAI 2023) with 32 summands: 50,176 parameters on ViT-B. Published for
# CLIP and 5 images a class.
method = dict(type='KAdaptation', number=32)
