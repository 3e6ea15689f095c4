# Types that GLEAM-MM does not have are looked up in MMPretrain, then in MMEngine.
default_scope = 'gleam_mm'
runner_type = 'PETLRunner'

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=100),
    param_scheduler=dict(type='ParamSchedulerHook'),
    # Adapter checkpoints are small, so one is written every epoch; the best one is kept beside the
    # last wherever the config validates.
    checkpoint=dict(type='AdapterCheckpointHook', interval=1, max_keep_ckpts=1, save_best='auto'),
    # A resumed run draws what an uninterrupted one would have drawn.
    epoch_seed=dict(type='EpochSeedHook'),
    # Refuses a head of another size than the dataset has classes.
    classes=dict(type='CheckClassesHook'),
    # Lets a method that asks for it look at training data before the first step.
    calibrate=dict(type='CalibrateHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='VisualizationHook', enable=False),
    # `default_hooks.device_cache.cache_features=True` computes what the backbone does before the
    # first trained block once (of a linear probe all of it), `cache_images=True` keeps the images
    # on the device; both need training images that are not augmented at random.
    device_cache=dict(type='DeviceCacheHook', cache_images=False, cache_features=False),
    # On a terminal: one progress bar, the rest goes to the log file.
    console=dict(type='ConsoleHook'),
)

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),  # gloo where there is no GPU
)

vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='UniversalVisualizer', vis_backends=vis_backends)

log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=0, deterministic=False)
