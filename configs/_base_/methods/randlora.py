# RandLoRA (Albert et al., 2025) by HF PEFT, with its default rank and alpha, on the sites of our
# LoRA: updates of full rank from frozen random bases. The bases are saved with what is trained.
method = dict(
    type='HFPeft',
    config=dict(peft_type='RANDLORA', r=32, randlora_alpha=640),
    sites=['qkv'],
)
