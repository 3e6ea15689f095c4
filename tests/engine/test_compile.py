"""`compile` of a config compiles the backbone with its method, and trains as without."""

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from torch._dynamo.utils import counters


class Count(Hook):
    """Counts the graphs by the end of each epoch, its validation included."""

    def __init__(self):
        self.graphs = []

    def after_val_epoch(self, runner, metrics=None):
        self.graphs.append(counters['stats']['unique_graphs'])


@pytest.mark.slow
def test_a_compiled_training_is_the_same(make_runner, make_classifier, tmp_path):
    weights, count = [], Count()
    torch._dynamo.reset()
    counters.clear()
    for name, compiled in (('plain', None), ('compiled', dict(backend='eager', fullgraph=True))):
        model = make_classifier('LoRA', num_classes=2, rank=2)
        runner = make_runner(
            model, tmp_path / name, cfg=Config(dict(compile=compiled)), hooks=[count]
        )
        runner.train()
        weights.append({n: p for n, p in model.named_parameters() if p.requires_grad})
    torch.testing.assert_close(*weights)
    first, second, third, *compiled = count.graphs
    assert first == second == third == 0
    assert 0 < compiled[0] <= compiled[1] == compiled[2]  # no more from epoch to epoch
    assert not counters['graph_break']
