# NeuroAda (Zhang et al., EMNLP 2025): of every row of the qkv, proj, fc1 and fc2 weights, the one
# number that is largest by magnitude is tuned: 82,944 parameters on ViT-B, merged exactly. One a
# row is the paper's smallest setting; it has tasks of language only.
method = dict(type='SparseTuning', select='magnitude', k=1)
