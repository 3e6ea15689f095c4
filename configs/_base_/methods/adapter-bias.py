# AdapterBias (Fu et al., NAACL 2022 Findings) behind each FFN: 18,444 parameters on ViT-B.
# Published for language only.
method = dict(type='AdapterBias')
