# GPS (Zhang et al., CVPR 2024): of every row of the qkv, proj, fc1 and fc2 weights, the one number
# with the largest gradient, and all biases: 185,856 parameters on ViT-B, merged exactly. The paper
# prints 0.22 M with the head. Its gradient is that of a contrastive loss, here that of the
# training; its code tunes the patch embedding too, and leaves the biases of the norms.
# The official code, on VTAB-1K: Adam, 100 epochs of which 10 warm up, no weight decay, batches of
# 32, and a learning rate for each task (0.01 on CIFAR-100).
method = dict(
    type='Compose',
    methods=dict(
        sparse=dict(type='SparseTuning', select='gradient', k=1),
        bias=dict(type='BitFit'),
    ),
)
