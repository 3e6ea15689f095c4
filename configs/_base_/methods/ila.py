# ILA (Rios et al., 2024) with bottlenecks of 8 behind every block, all of them with padding:
# 160,320 parameters on ViT-B. Published for ten ultra-fine-grained datasets, with SGD at a learning
# rate of 0.1, dropout 0.1, and no padding in two of the adapters.
method = dict(type='ILA', bottleneck=8)
