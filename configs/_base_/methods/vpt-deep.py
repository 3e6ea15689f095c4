# VPT-deep (Jia et al., 2022): 460,800 parameters on ViT-B with 50 prompts a block. The paper
# chooses the number for each task among {1, 5, 10, 50, 100, 200}: use the validation split. The
# dropout of 0.1 is that of the VTAB-1K examples in the paper's code, which has no drop path:
# `model.backbone.drop_path_rate=0`.
method = dict(type='VPT', num_prompts=50, deep=True, drop_rate=0.1)
