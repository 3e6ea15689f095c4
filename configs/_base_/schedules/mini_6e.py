# The schedule of MiniVTAB's sweeps: as mini, in six epochs and with bfloat16, on a CPU as well.
_base_ = 'mini.py'

optim_wrapper = dict(type='AmpOptimWrapper', dtype='bfloat16')

param_scheduler = _base_.param_scheduler
param_scheduler[0].end = param_scheduler[1].begin = 1

train_cfg = dict(max_epochs=6)
