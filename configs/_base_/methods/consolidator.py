# Consolidator (Hao et al., ICLR 2023) with 384 groups beside every Linear: 304,128 parameters on
# ViT-B. The official code chooses the drop path for each task, from 0 to 0.8: use the validation
# split.
method = dict(type='Consolidator', groups=384, drop_path_rate=0.0)
