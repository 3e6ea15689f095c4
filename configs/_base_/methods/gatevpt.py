# GateVPT (Yoo et al., ICML 2023): shallow prompts, blended behind each block: 38,411 parameters on
# ViT-B with 50 prompts. Published for self-supervised ViTs (MAE, MoCo v3), with learned
# temperatures of the attention beside the gates, which are not here. Its gates start nearly
# closed, at sigmoid(-5); the paper searches the start, and learning rates, for each task.
method = dict(type='VPT', num_prompts=50, deep=False, gate=-5.0)
