# The frozen weights of the backbone are shared out among the processes, block by block (FSDP2);
# what is trained stays whole in each of them. For backbones that fill a GPU:
#   tools/dist_train.sh CONFIG 8 --cfg-options strategy=fsdp
# or this file among the `_base_` of a config. See docs/howto/several-gpus.md.
model_wrapper_cfg = dict(type='ShardedDataParallel')
