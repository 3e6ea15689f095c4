"""What a method trains is what it declares, what its paper counts, and what a file holds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cases import CASES, SHAPES, build_classifier, logits, make_images, randomize

from gleam_mm.checkpoint import read_adapter, save_adapter
from gleam_mm.petl import PETLMethod
from gleam_mm.registry import MODELS

LOADER = Path(__file__).with_name('load_adapters.py')


def test_every_method_has_a_row():
    methods = {
        name
        for name, component in MODELS.module_dict.items()
        if isinstance(component, type) and issubclass(component, PETLMethod)
        if component.__module__.startswith('gleam_mm.')  # other tests register methods of their own
    }
    assert methods == {case.petl['type'] for case in CASES}


def test_declared(classifier):
    declared = {
        name if name.startswith('backbone.') else f'petl.{name}': parameter
        for name, parameter in classifier.petl.trainable_parameters()
    }
    trained = {
        name: parameter
        for name, parameter in classifier.named_parameters()
        if parameter.requires_grad and not name.startswith('head.')
    }
    assert trained.keys() == declared.keys()
    assert all(trained[name] is declared[name] for name in trained)


def test_count(case, kind, classifier):
    trained = [parameter for _, parameter in classifier.petl.trainable_parameters()]
    assert len({id(parameter) for parameter in trained}) == len(trained)
    assert sum(parameter.numel() for parameter in trained) == case.count(SHAPES[kind])


def save(classifier, path):
    tensors = classifier.state_dict()
    tensors.pop('_extra_state')
    save_adapter(path, tensors, dict(backbone_fingerprint=classifier.backbone_fingerprint()))


def test_saved(case, classifier, tmp_path):
    save(classifier, tmp_path / 'adapter.safetensors')
    tensors, _ = read_adapter(tmp_path / 'adapter.safetensors')
    expected = sum(p.numel() for p in classifier.parameters() if p.requires_grad)
    expected += sum(p.numel() for p in classifier.petl.parameters() if not p.requires_grad)
    expected += count_buffers(classifier.petl)
    if case.petl['type'] == 'FullTuning':  # nothing of the backbone is frozen
        expected += count_buffers(classifier.backbone)
    assert sum(tensor.numel() for tensor in tensors.values()) == expected


def count_buffers(module):
    """Numbers in the buffers that a module declares as part of its state."""
    parameters = dict(module.named_parameters())
    return sum(t.numel() for name, t in module.state_dict().items() if name not in parameters)


@pytest.fixture(scope='module')
def reloaded(request, tmp_path_factory):
    """Each combination to check, saved here and loaded by one other process: (ours, theirs)."""
    folder = tmp_path_factory.mktemp('adapters')
    torch.manual_seed(1)
    images = make_images(2)
    torch.save(images, folder / 'images.pt')
    ours, jobs = {}, []
    for item in request.session.items:
        if item.path != request.path or item.originalname != 'test_round_trip':
            continue
        case, kind = (item.callspec.params[name] for name in ('case', 'kind'))
        row = CASES.index(case)
        name = f'{row}-{kind}'
        classifier = build_classifier(case, kind)
        randomize(classifier.petl)
        save(classifier, folder / f'{name}.safetensors')
        with torch.no_grad():
            ours[name] = logits(classifier, images)
        jobs.append([name, row, kind])
    (folder / 'jobs.json').write_text(json.dumps(jobs))
    subprocess.run([sys.executable, str(LOADER), str(folder)], check=True)
    theirs = torch.load(folder / 'outputs.pt')
    return {name: (ours[name], theirs[name]) for name in ours}


def test_round_trip(case, kind, reloaded):
    ours, theirs = reloaded[f'{CASES.index(case)}-{kind}']
    assert not isinstance(theirs, str), theirs
    assert torch.equal(ours, theirs)
