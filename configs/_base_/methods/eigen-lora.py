# EigenLoRAx, with the rank of the preset `lora`. `model.adapters` names the LoRAs whose directions
# it takes.
method = dict(type='EigenLoRA', components=16, rank=8, alpha=8.0, sites=['qkv'])
