# E2VPT (Han et al., ICCV 2023): 138,240 parameters on ViT-B with 10 prompts of the input and 5
# among keys and values, less what is pruned. The official code chooses, for each VTAB task, 1 to 32
# prompts of the input, 1, 5 or 10 among keys and values, both shares to prune from 10 to 90 %, and
# learning rate and weight decay as VPT does; dropout 0.1, batches of 64, 100 epochs before the
# pruning and 100 after it.
method = dict(type='E2VPT', num_prompts=10, num_keys=5, prune_prompts=0.3, prune_pieces=0.3)
