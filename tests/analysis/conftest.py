"""Subjects of analyses: tiny backbones with methods that have moved off their start."""

import pytest
import torch
from conformance.cases import CASES, build_classifier, randomize
from mmengine.config import Config

from gleam_mm.analysis.subjects import Subject, make_twin

DIGITS = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')
BY_NAME = {case.name: case for case in CASES}


def loader(images, task='digits'):
    dataset = dict(
        type='MiniVTAB',
        task=task,
        split='test',
        indices=images,
        pipeline=[dict(type='PackInputs')],
    )
    return dict(batch_size=4, num_workers=0, dataset=dataset)


@pytest.fixture
def make_subject():
    """Makes a subject: ``make_subject('LoRA', 'vit')``; moved, as training moves it."""

    def make(case, kind='vit', moved=True, images=24):
        case = BY_NAME[case]
        model = build_classifier(case, kind)
        twin = make_twin(model)
        if moved:
            torch.manual_seed(1)
            randomize(model.petl)
        cfg = Config(
            dict(
                model=dict(petl=dict(case.petl), head=dict(num_classes=model.head.num_classes)),
                test_dataloader=loader(images),
            ),
            cfg_text='# without a file',
            filename='tiny.py',
        )
        return Subject(case.name, cfg, model, twin, classes=DIGITS)

    return make
