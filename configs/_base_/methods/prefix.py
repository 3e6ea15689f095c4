# Prefix tuning (Li and Liang, ACL 2021) in every block: 184,320 parameters on ViT-B with 10 keys
# and values. Published for language models, as P-tuning v2 (Liu et al., 2022) in this form.
method = dict(type='PrefixTuning', number=10)
