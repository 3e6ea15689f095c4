# VPT-shallow (Jia et al., 2022): 38,400 parameters on ViT-B with 50 prompts, without dropout. The
# paper chooses the number for each task among {1, 5, 10, 50, 100, 200}: use the validation split.
# Its code has no drop path: `model.backbone.drop_path_rate=0`.
method = dict(type='VPT', num_prompts=50, deep=False)
