# LoReFT (Wu et al., NeurIPS 2024) of rank 4 behind every block: 73,776 parameters on ViT-B.
# Published for language, where it edits a few of the first and last tokens.
method = dict(type='LoReFT', rank=4)
