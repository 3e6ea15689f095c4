# The frozen weights of the backbone are shared out among the processes, module by module (ZeRO-3 of
# DeepSpeed, which is to be installed), or kept in the host's memory; what is trained stays whole.
#   tools/dist_train.sh CONFIG 8 --cfg-options strategy=deepspeed \
#       model_wrapper_cfg.zero_optimization.offload_param.device=cpu
# or this file among the `_base_` of a config. See docs/howto/several-gpus.md.
model_wrapper_cfg = dict(type='ZeroDataParallel', zero_optimization=dict())
