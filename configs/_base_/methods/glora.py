# GLoRA (Chavan et al., 2023): the supernet of rank 4 with which the paper's code starts, 1,603,776
# parameters on ViT-B (525,360 at rank 1, 884,832 at rank 2). tools/search.py finds its best subnet,
# see docs/supernets.md. That code trains the supernet for 500 epochs at a rate of 1e-4.
method = dict(type='GLoRA', rank=4)
