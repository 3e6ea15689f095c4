# READ (Wang et al., 2023) with a state of 64 numbers: 211,584 parameters on ViT-B, whatever the
# depth. Published for T5 on GLUE.
method = dict(type='READ', hidden=64)
