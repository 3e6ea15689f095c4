# S2A (2025) by composition: biases, prompts and a side path: 167,424 parameters on ViT-B. The paper
# also stores what nonlinearities keep for the backward pass in 4 bits, which is not here; it
# publishes no code, so that the sizes of the parts are ours.
method = dict(
    type='Compose',
    methods=dict(
        bias=dict(type='BitFit'),
        prompts=dict(type='VPT', num_prompts=3),
        side=dict(type='DTL', rank=2),
    ),
)
