"""`compile` of a config compiles the backbone with its method, and trains as without."""

import pytest
import torch
from mmengine.config import Config
from torch._dynamo.utils import counters


@pytest.mark.slow
def test_a_compiled_training_is_the_same(make_runner, make_classifier, tmp_path):
    weights = []
    torch._dynamo.reset()
    counters.clear()
    for name, compiled in (('plain', None), ('compiled', dict(backend='eager', fullgraph=True))):
        model = make_classifier('LoRA', num_classes=2, rank=2)
        runner = make_runner(model, tmp_path / name, cfg=Config(dict(compile=compiled)))
        assert not counters['stats']['unique_graphs']
        runner.train()
        weights.append({n: p for n, p in model.named_parameters() if p.requires_grad})
    torch.testing.assert_close(*weights)
    # One graph for training and one for evaluation, of all its iterations and validations.
    assert counters['stats']['unique_graphs'] == 2
    assert not counters['graph_break']
