# NOAH (Zhang, Zhou and Liu, 2022): the supernet with the sizes and depths of its VTAB-1K search,
# 654,456 parameters on ViT-B. tools/search.py finds its best subnet, which is then trained on its
# own, see docs/supernets.md. The paper's code trains the supernet for 500 epochs at a rate of 5e-4
# and a subnet for 100 epochs at 1e-3.
# It has dropout of 0.1 in all three kinds of modules and starts them at random, of which nothing is
# an option here: the docstring of the class has the nine ways in which it differs.
# It has no weight decay on one-dimensional parameters:
# `optim_wrapper.paramwise_cfg.flat_decay_mult=0`.
method = dict(type='NOAH', sizes=[1, 5, 10])
