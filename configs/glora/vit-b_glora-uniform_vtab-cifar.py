# Without a search: the same forms for every Linear. A scales the rows of the weights, B is a LoRA,
# E trains the biases. It merges into the backbone, as every subnet does.
_base_ = [
    '../_base_/backbones/vit-b.py',
    '../_base_/methods/glora.py',
    '../_base_/datasets/vtab-cifar.py',
    '../_base_/schedules/petl_100e.py',
    '../_base_/default_runtime.py',
]

subnet = dict(A='vector', B='low-rank', C='none', D='none', E='vector')
model = dict(petl={**_base_.method, 'subnet': subnet})
