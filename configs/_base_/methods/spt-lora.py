# SPT-LoRA (He et al., ICCV 2023): 400,000 parameters, of which LoRAs of rank 8 stand where many
# weights are sensitive. The official code tries budgets from 0.2 M to 1 M for each task, has
# alpha=10, AdamW with a learning rate of 1e-3, 100 epochs, and a drop path of 0.1 on the LoRAs.
method = dict(type='SPT', form='lora', budget=400_000, rank=8, alpha=10.0)
