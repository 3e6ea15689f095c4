# SCT (Zhao et al., IJCV 2024) on 96 channels behind each attention, chosen on the first batches of
# the training: 111,744 parameters on ViT-B.
method = dict(type='SCT', number=96)
