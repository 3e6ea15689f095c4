# The subnet that NOAH's authors published for CIFAR-100, 320,330 parameters, to be trained without
# a search of one's own.
_base_ = './vit-b_noah_vtab-cifar.py'

subnet = dict(
    prompts=[10, 5, 10, 1, 5, 1, 10, 1, 10, 5, 1, 10],
    lora=[10, 1, 5, 5, 1, 10, 1, 1, 1, 10, 1, 1],
    adapter=[5, 10, 10, 10, 5, 1, 1, 1, 10, 10, 10, 1],
)
model = dict(petl=dict(subnet=subnet))
