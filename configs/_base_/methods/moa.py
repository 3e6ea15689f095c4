# Soft MoA (Cao et al., 2025) by composition: LoRAs and parallel adapters of which a sigmoid of
# every token weighs each: 470,136 parameters on ViT-B. Published for language models, with prompts
# as a third kind of experts.
method = dict(
    type='Compose',
    methods=dict(
        attention=dict(type='LoRA', rank=8, sites=['qkv'], gate=True),
        ffn=dict(type='AdaptFormer', bottleneck=8, scale=1.0, gate=True),
    ),
)
