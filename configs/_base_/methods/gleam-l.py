# GLEAM-L: 70,784 parameters on ViT-B. n = 4 experts as the paper, which searches alpha in
# {0.01, 0.1, 1, 10, 100} and k in {1, 2, 3} for each task: choose them on the validation split. By
# default all four serve every image, which trained best on MiniVTAB's val200 (docs/gleam.md).
# local_init='uniform' was ahead on DINOv2's ViT-S/14 and behind on the narrow vit-mini: try it.
method = dict(type='GLEAM', rank=16, alpha=1.0, num_experts=4, top_k=4)
