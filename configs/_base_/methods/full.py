# Full tuning: every weight of the backbone is trained. 1e-3, the schedule's rate, is for adapters:
# give it a smaller one, as in `--cfg-options optim_wrapper.optimizer.lr=1e-4`.
method = dict(type='FullTuning')
