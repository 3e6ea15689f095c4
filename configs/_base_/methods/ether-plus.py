# ETHER+ (Bini et al., ICML 2024) on both sides of every Linear: 294,912 parameters on ViT-B. High
# learning rates do no harm, says the paper.
method = dict(type='ETHERPlus')
