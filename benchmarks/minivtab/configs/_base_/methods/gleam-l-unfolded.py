# GLEAM-L, each expert computed as it is written: ../../../unfolded.py.
custom_imports = dict(imports=['unfolded'])
method = dict(type='UnfoldedGLEAM', rank=16, num_experts=4, top_k=4)
