# DoRA (Liu et al., 2024) by HF PEFT. Query, key, value and both Linears of the FFN, and an alpha of
# twice the rank, as the paper; rank 8 as our LoRA (the paper's language models have 16 and 32).
method = dict(
    type='HFPeft',
    config=dict(peft_type='LORA', r=8, lora_alpha=16, use_dora=True),
    sites=['qkv', 'fc1', 'fc2'],
)
