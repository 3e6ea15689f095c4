# R-Adapter (Kim et al., ECCV 2024) of rank 64 behind attention and FFN: 2,359,320 parameters on
# ViT-B. Its weights are averaged too: custom_hooks=[dict(type='EMAHook', momentum=0.001)].
method = dict(type='RAdapter', rank=64)
