# SoKA (2025): as moka without the gate, from the four products that are closest to the weight:
# 132,096 parameters on ViT-B's qkv. Published for language models, with the number of products
# chosen by the spectrum.
method = dict(type='Kronecker', number=4, size=32, init='svd')
