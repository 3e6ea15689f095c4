"""Exported models give what PyTorch gives, at every batch size, in other runtimes."""

import json

import numpy as np
import pytest
import torch
from backbones import CONFIGS, NECKS, WIDTH
from conformance.cases import CASES
from torch import nn

from gleam_mm.inference.export import BATCHES, Exportable, ExportError, export, export_model
from gleam_mm.inference.predictor import Predictor
from gleam_mm.registry import MODELS

SHAPE = (3, 32, 32)


def exportable(petl, kind='vit'):
    """A tiny classifier whose method does something."""
    torch.manual_seed(0)
    width = CONFIGS[kind].get('embed_dims', WIDTH) if kind == 'swin' else WIDTH
    model = MODELS.build(
        dict(
            type='PETLClassifier',
            backbone=dict(CONFIGS[kind]),
            neck=NECKS.get(kind),
            head=dict(type='LinearClsHead', in_channels=width, num_classes=3),
            petl=dict(petl),
            data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3, to_rgb=True),
            allow_random_backbone=True,
        )
    )
    model.init_weights()
    with torch.no_grad():
        for _, parameter in model.petl.trainable_parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return Exportable(model, model.data_preprocessor)


GLEAM = dict(type='GLEAM', rank=4)


@pytest.mark.parametrize('ending', ['.onnx', '.pt', '.pt2'])
def test_gleam(ending, tmp_path):
    done = export_model(exportable(GLEAM), SHAPE, tmp_path / f'x{ending}', {})
    assert done.differences.keys() == set(BATCHES)
    assert max(done.differences.values()) < 1e-4
    assert list(tmp_path.iterdir()) == [done.path]


def cells():
    """Every method to both exporters; of those that are folded to the backbone's graph, to one.

    ONNX is made from the program that ``.pt2`` holds.
    """
    return [
        pytest.param(case.petl, ending, id=f'{case.name}-{ending}')
        for case in CASES
        for ending in (['.pt'] if case.merges else ['.onnx', '.pt'])
    ]


@pytest.mark.slow
@pytest.mark.parametrize(('petl', 'ending'), cells())
def test_every_method(petl, ending, tmp_path):
    done = export_model(exportable(petl), SHAPE, tmp_path / f'x{ending}', {})
    assert max(done.differences.values()) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize('kind', sorted(CONFIGS.keys() - {'vit'}))
def test_every_backbone(kind, tmp_path):
    done = export_model(exportable(GLEAM, kind), SHAPE, tmp_path / 'x.onnx', {})
    assert max(done.differences.values()) < 1e-4


def test_the_graph_that_is_exported_is_the_same_function():
    """Equation 9 summed over kernels, which is trained, and over experts, which is exported."""
    model = exportable(GLEAM).double()
    mixer = model.model.petl.shared['mixer']
    images = torch.rand(3, *SHAPE, dtype=torch.double) * 255
    expected = model(images)
    summed = []

    def sum_experts(z, grid, mixture, gate_images=mixer._gate_images):
        inside = grid.split(z)[1]
        weights = mixer.route(inside.mean(1), mixture.router)
        mixed = mixer._sum_experts(inside, weights, grid, mixture.kernels)
        summed.append(1)
        whole = gate_images(z, grid, mixture)
        return grid.join(grid.split(whole)[0], mixed)

    mixer._gate_images = sum_experts
    torch.testing.assert_close(model(images), expected, rtol=1e-10, atol=1e-10)
    assert summed


class Odd(nn.Module):
    """Gives something else once it is exported."""

    def forward(self, images):
        return images.mean((2, 3)) + float(torch.jit.is_tracing())


def test_what_differs_is_not_written(tmp_path):
    odd = Exportable(Odd(), None)
    with pytest.raises(ExportError, match='its outputs differ by'):
        export_model(odd, SHAPE, tmp_path / 'x.pt', {})
    assert not list(tmp_path.iterdir())


class Pairs(nn.Module):
    """Knows the number of images that it is traced with."""

    def forward(self, images):
        return images.mean((2, 3)).view(int(images.shape[0]), 3) @ torch.ones(3, 3)


class Decomposing(nn.Module):
    """Computes what ONNX has no operator for."""

    def forward(self, images):
        return torch.linalg.qr(images.mean(1)).R.mean(1)


@pytest.mark.parametrize(
    ('model', 'ending', 'told'),
    [
        (Pairs(), '.pt', r'exported to \.pt, it does not run for batches of other sizes: '),
        (Decomposing(), '.onnx', r'cannot be exported to \.onnx: No ONNX function .*linalg_qr'),
    ],
)
def test_what_cannot_be_exported_is_told_by_its_cause(model, ending, told, tmp_path):
    with pytest.raises(ExportError, match=told):
        export_model(Exportable(model, None), SHAPE, tmp_path / f'x{ending}', {})
    assert not list(tmp_path.iterdir())


def test_other_endings(tmp_path):
    with pytest.raises(ValueError, match=r'x\.tflite: the ending is one of \.onnx, \.pt, \.pt2'):
        export('a.safetensors', tmp_path / 'x.tflite')


def test_no_file_is_replaced(tmp_path):
    (tmp_path / 'x.pt').write_bytes(b'precious')
    with pytest.raises(FileExistsError, match=r'x\.pt exists already'):
        export('a.safetensors', tmp_path / 'x.pt')


@pytest.mark.slow
def test_the_file_tells_what_it_takes(saved_adapter, tmp_path):
    """An adapter, its export, and the same prediction of a picture prepared by hand."""
    onnxruntime = pytest.importorskip('onnxruntime')
    export(saved_adapter, tmp_path / 'x.onnx')
    session = onnxruntime.InferenceSession(str(tmp_path / 'x.onnx'))
    told = session.get_modelmeta().custom_metadata_map
    assert json.loads(told['classes']) == ['a', 'b', 'c']
    assert told['input'] == 'RGB, 0 to 255, (batch, 3, 32, 32)'
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    (logits,) = session.run(None, {'images': picture.transpose(2, 0, 1)[None].astype(np.float32)})
    scores = np.exp(logits[0]) / np.exp(logits[0]).sum()
    best = Predictor(saved_adapter)(picture)
    assert best.label == 'abc'[scores.argmax()]
    assert best.score == pytest.approx(scores.max(), abs=1e-4)
