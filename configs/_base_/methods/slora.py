# SLoRA (eq. 7 of the GLEAM paper): LoRA with one pair of projections for the whole network, the
# first rung of the ladder that ends in GLEAM. Rank as GLEAM-L.
method = dict(type='SLoRA', rank=16, alpha=1.0)
