# Adapter+ (Steitz and Roth, CVPR 2024) with a bottleneck of 8: 165,984 parameters on ViT-B. Drop
# path as there. The paper reaches 77.6 on VTAB-1K with one setting for all tasks: AdamW for 100
# epochs, and images normalised to -1 to 1: data_preprocessor.normalize=half.
method = dict(type='AdapterPlus', bottleneck=8, drop_path_rate=0.1)
