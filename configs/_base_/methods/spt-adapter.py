# SPT-Adapter (He et al., ICCV 2023): as spt-lora, with parallel adapters for the structures.
method = dict(type='SPT', form='adapter', budget=400_000, rank=8, alpha=10.0)
