# MLAE (Wang et al., 2024) with 8 experts at every Linear: 1,180,032 parameters on ViT-B. The paper
# drops half of the experts or more in training: choose the rate on the validation split.
method = dict(type='MLAE', rank=8, expert_drop_rate=0.5)
