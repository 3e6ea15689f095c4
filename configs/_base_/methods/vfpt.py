# VFPT (Zeng et al., NeurIPS 2024): VPT-deep, a share of whose prompts enters as a Fourier
# transform: 460,800 parameters on ViT-B with 50 prompts a block. The paper chooses number and share
# for each task: use the validation split.
method = dict(type='VPT', num_prompts=50, deep=True, drop_rate=0.1, fourier=0.5)
