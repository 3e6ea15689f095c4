# Adapter (Houlsby et al., 2019) with a bottleneck of 8 behind each FFN: 156,768 parameters on
# ViT-B, the setting of the paper's Adapter row. The runs behind that row had dropout of 0.1
# (`drop_rate=0.1`), and both matrices started at N(0, 0.02), so that they did not start as the
# pretrained model; here U starts at zero, and no option does otherwise. Houlsby et al. have a
# second adapter behind the attention: sites=['proj', 'fc2'].
method = dict(type='Adapter', bottleneck=8, sites=['fc2'])
