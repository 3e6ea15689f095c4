# VB-LoRA (Li et al., 2024) by HF PEFT, with its default of rank 4 and 256 vectors in the bank, of
# which it mixes the best two. Vectors have 128 numbers (PEFT: 256), of which all widths of Swin-B
# are multiples. The paper gives the logits 10 times the learning rate of the bank.
method = dict(
    type='HFPeft',
    config=dict(peft_type='VBLORA', r=4, num_vectors=256, vector_length=128, topk=2),
    sites=['qkv'],
)
