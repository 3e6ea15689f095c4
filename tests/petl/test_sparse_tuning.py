"""Sparse tuning against full tuning of the Linears under a dense mask."""

import pytest
import torch
from mmpretrain.models import VisionTransformer
from torch.nn import functional as F

from gleam_mm.checkpoint import load_adapter, read_adapter, save_adapter
from gleam_mm.layouts import LINEAR_ROLES, find_layout
from gleam_mm.petl import SparseTuning
from gleam_mm.petl.sparse_tuning import SparseRows
from gleam_mm.registry import MODELS

ARCH = dict(
    arch=dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=128),
    img_size=32,
    patch_size=8,
)


def dense_mask(scores, k):
    """Ones at the k largest scores of each row."""
    mask = torch.zeros_like(scores)
    for row, values in zip(mask, scores.abs(), strict=True):
        for column in sorted(range(len(values)), key=lambda i: -float(values[i]))[:k]:
            row[column] = 1
    return mask


def loss_of(backbone, images):
    return backbone(images)[0].square().mean()


def linears(backbone):
    return {site.key: site.module for site in find_layout(backbone).sites(LINEAR_ROLES)}


def test_training_equals_that_of_masked_weights(vit, images):
    reference = VisionTransformer(**ARCH)
    reference.load_state_dict(vit.state_dict())
    reference.eval()
    weights = {key: linear.weight for key, linear in linears(reference).items()}
    masks = {key: dense_mask(weight.detach(), 3) for key, weight in weights.items()}
    theirs = torch.optim.SGD(weights.values(), lr=0.5)

    method = SparseTuning(3)
    vit.requires_grad_(False)
    method.attach(vit)
    ours = torch.optim.SGD(method.parameters(), lr=0.5)
    for _ in range(3):
        for model, optimizer in ((vit, ours), (reference, theirs)):
            optimizer.zero_grad()
            loss_of(model, images).backward()
            if model is reference:
                for key, weight in weights.items():
                    weight.grad *= masks[key]
            optimizer.step()
    torch.testing.assert_close(vit(images)[0], reference(images)[0], rtol=0, atol=1e-6)
    method.merge()
    for key, linear in linears(vit).items():
        torch.testing.assert_close(linear.weight, weights[key], rtol=0, atol=1e-6)


def test_a_state_dict_that_is_assigned_computes(vit, images):
    method = SparseTuning(2)
    method.attach(vit)
    for parameter in method.parameters():
        torch.nn.init.normal_(parameter)
    expected = vit(images)[0]
    method.load_state_dict(method.state_dict(), assign=True)
    assert torch.equal(vit(images)[0], expected)


def test_gradient_chooses_the_columns_of_the_largest_summed_gradient(vit, images):
    batches = [images, torch.randn_like(images)]
    weights = {key: linear.weight for key, linear in linears(vit).items()}
    total = torch.autograd.grad(sum(loss_of(vit, batch) for batch in batches), weights.values())
    masks = {key: dense_mask(gradient, 2) for key, gradient in zip(weights, total, strict=True)}

    vit.requires_grad_(False)
    method = SparseTuning(2, 'gradient')
    method.attach(vit)
    before = {key: rows.columns.clone() for key, rows in method.local.items()}
    method.calibrate([lambda batch=batch: loss_of(vit, batch) for batch in batches])
    assert any(not torch.equal(rows.columns, before[key]) for key, rows in method.local.items())
    for key, rows in method.local.items():
        chosen = torch.zeros_like(masks[key]).scatter(1, rows.columns, 1)
        assert torch.equal(chosen, masks[key])
    assert not any(weight.requires_grad for weight in weights.values())


def test_magnitude_needs_no_data(vit):
    method = SparseTuning(2)
    method.attach(vit)
    method.calibrate([lambda: pytest.fail('it looked at a batch')])


def make(backbone_seed=0, seed=1):
    torch.manual_seed(backbone_seed)
    backbone = MODELS.build(dict(type='VisionTransformer', **ARCH))
    torch.manual_seed(seed)
    model = MODELS.build(
        dict(
            type='PETLClassifier',
            backbone=backbone,
            head=dict(type='LinearClsHead', in_channels=32, num_classes=3),
            petl=dict(type='SparseTuning', k=2, select='gradient'),
        )
    )
    model.eval()
    return model


def saved(model, path):
    tensors = {k: v for k, v in model.state_dict().items() if k != '_extra_state'}
    save_adapter(path, tensors, dict(backbone_fingerprint=model.backbone_fingerprint()))
    return tensors


def calibrated(images):
    model = make()
    labels = torch.tensor([0, 1])
    model.petl.calibrate([lambda: F.cross_entropy(model(images), labels)])
    for values in model.petl.parameters():
        torch.nn.init.normal_(values, std=0.1)
    return model


def test_a_file_holds_columns_and_values_and_no_data_is_needed_again(images, tmp_path):
    model = calibrated(images)
    saved(model, tmp_path / 'adapter.safetensors')
    tensors, _ = read_adapter(tmp_path / 'adapter.safetensors')
    rows = [t for name, t in tensors.items() if name.endswith('.columns')]
    # Widths of 32 fit in a byte, and so do those of 128.
    assert {t.dtype for t in rows} == {torch.uint8}
    numbers = 2 * 2 * (96 + 32 + 128 + 32)
    assert sum(t.numel() for t in rows) == numbers
    assert sum(t.numel() for name, t in tensors.items() if name.startswith('petl.')) == 2 * numbers

    twin = make(seed=5)
    with torch.no_grad():
        assert not torch.equal(twin(images), model(images))
        load_adapter(twin, tmp_path / 'adapter.safetensors')
        assert torch.equal(twin(images), model(images))
    for key, rows in model.petl.local.items():
        assert torch.equal(twin.petl.local[key].columns, rows.columns)


def test_columns_outside_of_the_weight_are_refused(images, tmp_path):
    model = make()
    tensors = dict(model.state_dict())
    name = 'petl.local.layers/0/attn/qkv.columns'
    tensors[name] = tensors[name].clone().fill_(32)
    with pytest.raises(RuntimeError, match=r'columns has numbers outside of 0 to 31'):
        model.load_state_dict(tensors)


@pytest.mark.parametrize('width', [255, 256, 257, 2**15, 2**15 + 1])
def test_a_file_of_the_last_column_is_read_at_every_width(width):
    columns = torch.tensor([[0, width - 1]])
    twin = SparseRows(torch.zeros_like(columns), width)
    twin.load_state_dict(SparseRows(columns, width).state_dict())
    assert twin.columns.tolist() == [[0, width - 1]]
    state = dict(twin.state_dict(), columns=torch.tensor([[0, width]]))
    with pytest.raises(RuntimeError, match=f'outside of 0 to {width - 1}: the file is damaged'):
        twin.load_state_dict(state)


@pytest.mark.parametrize('k', [1, 3])
def test_parameters_on_vit_b(k):
    with torch.device('meta'):
        method = SparseTuning(k)
        method.attach(VisionTransformer('b'))
    assert sum(parameter.numel() for parameter in method.parameters()) == 82_944 * k
    columns = {name: t for name, t in method.state_dict().items() if name.endswith('.columns')}
    assert {t.dtype for t in columns.values()} == {torch.int16}


def test_mistakes_are_named(vit):
    with pytest.raises(ValueError, match='k=0'):
        SparseTuning(0)
    with pytest.raises(ValueError, match="select='random': choose 'magnitude'"):
        SparseTuning(1, 'random')
    with pytest.raises(ValueError, match=r"k=33 exceeds the 32 columns of 'layers.0.attn.qkv'"):
        SparseTuning(33).attach(vit)
    with pytest.raises(ValueError, match=r"'layers.0.ffn' .* a mmcv.*\.FFN;"):
        SparseTuning(sites=('ffn',)).attach(vit)
