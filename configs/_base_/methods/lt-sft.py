# LT-SFT (Ansell et al., ACL 2022): the 200,000 weights that a short training of all Linears moves
# most, as many parameters, merged exactly. Published for languages and tasks of multilingual BERT,
# where the first training is as long as the second one: `steps` and `lr` are ours.
method = dict(type='LTSFT', number=200_000, steps=50, lr=1e-4)
