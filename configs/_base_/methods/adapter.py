# Adapter (Houlsby et al., 2019) with a bottleneck of 8 behind each FFN: 156,768 parameters on
# ViT-B, the setting of the paper's Adapter row. Houlsby et al. have a second one behind the
# attention: sites=['proj', 'fc2'].
method = dict(type='Adapter', bottleneck=8, sites=['fc2'])
