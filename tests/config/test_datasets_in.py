"""Datasets within others, in configs."""

from mmengine.config import Config

from gleam_mm.config.datasets import datasets_in
from gleam_mm.inference.preprocessing import of_config

INNER = dict(type='RepeatDataset', times=2, dataset=dict(type='B', pipeline=[]))
OUTER = dict(type='ConcatDataset', datasets=[dict(type='A'), INNER])


def test_all_are_found_the_outer_ones_first():
    found = [dataset['type'] for dataset in datasets_in(OUTER)]
    assert found == ['ConcatDataset', 'A', 'RepeatDataset', 'B']
    assert list(datasets_in(None)) == []
    repeated = Config(dict(dataset=OUTER)).dataset
    for dataset in datasets_in(repeated):
        dataset.type = f'gleam_mm.{dataset.type}'
    assert repeated.datasets[1].dataset.type == 'gleam_mm.B'


def test_an_adapter_file_has_the_pipeline_of_the_first_that_says_one():
    steps = [dict(type='Resize', scale=(32, 32)), dict(type='PackInputs')]
    parts = [dict(type='A'), dict(type='RepeatDataset', dataset=dict(type='B', pipeline=steps))]
    dataset = dict(type='ConcatDataset', datasets=parts)
    assert of_config(Config(dict(test_dataloader=dict(dataset=dataset)))) == steps
