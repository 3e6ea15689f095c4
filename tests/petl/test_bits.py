"""Methods of few bits: their arithmetic, their gradient, and what files and checkpoints hold."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmpretrain.models import VisionTransformer
from torch.nn import functional as F

from gleam_mm.checkpoint import load_adapter, packing, read_adapter, save_adapter
from gleam_mm.engine.checkpoint_hook import adapter_metadata
from gleam_mm.models import params
from gleam_mm.petl import GLEAM, Adapter, AdaptFormer, FacT, Hydra, LoRA, SLoRA
from gleam_mm.petl.bits import packed_matrices

METHODS = {
    'Adapter': dict(bottleneck=4),
    'AdaptFormer': dict(bottleneck=4, bias=False),
    'LoRA': dict(rank=4, sites=['qkv', 'fc2']),
    'SLoRA': dict(rank=4),
    'FacT': dict(rank=4, form='tk'),
    'GLEAM': dict(rank=4),
    'Convpass': dict(bottleneck=4),
    'AdapterPlus': dict(bottleneck=4),
    'Hydra': dict(rank=2),
    'MLAE': dict(rank=2),
}


def one_bit(matrix):
    """The equation of one bit, written out."""
    mean, deviation = matrix.mean(), matrix.std(correction=0)
    return mean + deviation * 0.7978845608 * torch.where(matrix > mean, 1.0, -1.0)


def randomize(model):
    for parameter in model.petl.parameters():
        torch.nn.init.normal_(parameter, 0.02, 0.1)


def test_lora_of_one_bit_equals_the_equation_and_its_gradient_goes_straight_through(vit, images):
    method = LoRA(3, bits=1)
    method.attach(vit)
    torch.manual_seed(1)
    for parameter in method.parameters():
        torch.nn.init.normal_(parameter, 0.1)
    plain = LoRA(3)
    ours = vit(images)[0]
    ours.square().mean().backward()
    gradients = {name: p.grad for name, p in method.named_parameters()}
    method.detach()
    plain.attach(vit)
    with torch.no_grad():
        for theirs, latent in zip(plain.parameters(), method.parameters(), strict=True):
            theirs.copy_(one_bit(latent))
    vit.zero_grad()
    expected = vit(images)[0]
    torch.testing.assert_close(ours, expected)
    expected.square().mean().backward()
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad)


def test_local_transforms_are_rounded_around_the_identity(vit):
    method = GLEAM(4, bits=1)
    method.attach(vit)
    site = next(iter(method.sites.values()))
    identity = torch.eye(4).expand(3, 1, 4, 4)
    assert torch.equal(method.local_weight(site), identity)
    own = method.local[site.key]
    torch.nn.init.normal_(own.weight, 0.1)
    torch.testing.assert_close(method.local_weight(site), identity + one_bit(own.weight))


def saved(model, path):
    tensors = {k: v for k, v in model.state_dict().items() if k != '_extra_state'}
    metadata = dict(backbone_fingerprint=model.backbone_fingerprint())
    save_adapter(path, tensors, {**metadata, 'packed': packed_matrices(model)})


@pytest.mark.parametrize('bits', packing.BITS)
@pytest.mark.parametrize('name', METHODS)
@torch.no_grad()
def test_a_packed_file_gives_the_same_outputs_bit_for_bit(
    name, bits, make_classifier, images, tmp_path
):
    model = make_classifier(name, bits=bits, **METHODS[name])
    model.eval()
    randomize(model)
    expected = model(images)
    path, again = tmp_path / 'adapter.safetensors', tmp_path / 'again.safetensors'
    saved(model, path)
    twin = make_classifier(name, bits=bits, **METHODS[name])
    twin.eval()
    torch.manual_seed(5)
    randomize(twin)
    assert not torch.equal(twin(images), expected)
    load_adapter(twin, path)
    assert torch.equal(twin(images), expected)
    saved(twin, again)
    assert again.read_bytes() == path.read_bytes()
    # A checkpoint of what came out of a file is as good.
    third = make_classifier(name, bits=bits, **METHODS[name])
    third.eval()
    third.load_state_dict(twin.state_dict())
    assert torch.equal(third(images), expected)


@pytest.mark.parametrize('wrong', [torch.inf, torch.nan, 3e38])
@torch.no_grad()
def test_the_file_of_a_training_that_diverged_is_read_again(
    wrong, make_classifier, images, tmp_path
):
    model = make_classifier('LoRA', rank=4, bits=1)
    model.eval()
    randomize(model)
    site = next(iter(model.petl.local))
    model.petl.local[site].up[0] = wrong  # of whose squares 3e38 has infinite ones
    path, again = tmp_path / 'adapter.safetensors', tmp_path / 'again.safetensors'
    saved(model, path)
    tensors, metadata = read_adapter(path)
    name = f'petl.local.{site}.up'
    assert metadata['packed'].keys() == packed_matrices(model).keys() - {name}
    torch.testing.assert_close(tensors[name], model.petl.local[site].up, equal_nan=True)
    twin = make_classifier('LoRA', rank=4, bits=1)
    twin.eval()
    load_adapter(twin, path)
    torch.testing.assert_close(twin(images), model(images), rtol=0, atol=0, equal_nan=True)
    saved(twin, again)
    assert again.read_bytes() == path.read_bytes()


def test_a_checkpoint_has_the_latents_and_training_goes_on_from_a_file(
    make_classifier, images, tmp_path
):
    model = make_classifier('LoRA', rank=4, bits=1)
    randomize(model)
    latents = [p.detach().clone() for p in model.petl.parameters()]
    state = model.state_dict()
    twin = make_classifier('LoRA', rank=4, bits=1)
    twin.load_state_dict(state)
    assert all(map(torch.equal, twin.petl.parameters(), latents))

    saved(model, tmp_path / 'adapter.safetensors')
    load_adapter(twin, tmp_path / 'adapter.safetensors')
    twin.train()
    optimizer = torch.optim.SGD(twin.petl.parameters(), lr=10.0)
    F.cross_entropy(twin(images), torch.tensor([0, 1])).backward()
    optimizer.step()
    twin.eval()
    pair = next(iter(twin.petl.local.values()))
    assert pair.matrix('up').unique().numel() == 2
    torch.testing.assert_close(pair.matrix('up'), one_bit(pair.up))


@pytest.mark.parametrize('bits', packing.BITS)
@torch.no_grad()
def test_what_came_out_of_a_file_and_was_changed_in_evaluation_is_rounded_again(
    bits, make_classifier, images, tmp_path
):
    model, twin, third = (make_classifier('LoRA', rank=4, bits=bits).eval() for _ in range(3))
    randomize(model)
    path = tmp_path / 'adapter.safetensors'
    saved(model, path)
    load_adapter(twin, path)
    before = twin(images)
    for parameter in twin.petl.parameters():  # as a training in eval() does, or a sum of models
        parameter.add_(torch.randn_like(parameter), alpha=0.5)
    assert not torch.equal(twin(images), before)
    pair = next(iter(twin.petl.local.values()))
    assert pair.matrix('up').unique().numel() <= 2**bits
    saved(twin, path)
    load_adapter(third, path)
    assert torch.equal(third(images), twin(images))


@torch.no_grad()
def test_a_matrix_out_of_a_file_stays_rounded_through_half_precision(make_classifier, tmp_path):
    model, twin = (make_classifier('LoRA', rank=4, bits=1).eval() for _ in range(2))
    randomize(model)
    saved(model, tmp_path / 'adapter.safetensors')
    load_adapter(twin, tmp_path / 'adapter.safetensors')
    pair = next(iter(twin.petl.local.values()))
    before = pair.matrix('up')
    twin.bfloat16().float()
    torch.testing.assert_close(pair.matrix('up'), before, rtol=2**-7, atol=0)


def test_the_file_has_the_promised_size():
    with torch.device('meta'):
        method = AdaptFormer(32, bits=1, bias=False)
        method.attach(VisionTransformer('b'))
    assert sum(p.numel() for p in method.parameters()) == 589_824
    forms = packed_matrices(method)
    sizes = [torch.Size(form['shape']).numel() * form['bits'] / 8 for form in forms.values()]
    assert sum(sizes) == 72 * 1024
    assert len(sizes) == 24


def test_the_size_that_is_counted_is_that_of_the_file(make_classifier, tmp_path):
    model = make_classifier('Adapter', bottleneck=16, bits=1)
    saved(model, tmp_path / 'adapter.safetensors')
    counted = params.count(model).adapter_bytes
    plain = params.count(make_classifier('Adapter', bottleneck=16)).adapter_bytes
    packed = 2 * 2 * 32 * 16  # numbers, of 4 bytes and of a bit
    header = len('{"dtype":"F32","shape":[2],"data_offsets":[99999,99999]}')
    assert plain - counted == pytest.approx(packed * (4 - 1 / 8), abs=4 * (8 + 100 + header))
    file = (tmp_path / 'adapter.safetensors').stat().st_size
    tensors, _ = read_adapter(tmp_path / 'adapter.safetensors')
    assert counted == pytest.approx(file, abs=1600 + 60 * len(tensors))


@pytest.mark.parametrize('method', [Adapter, AdaptFormer, LoRA, SLoRA, FacT, GLEAM])
def test_bits_that_do_not_pack_are_refused(method):
    with pytest.raises(ValueError, match=r'bits=3: choose .*1.*2.*4.*8'):
        method(bits=3)


def test_adapters_without_biases(vit, images):
    method = Adapter(4, bias=False)
    method.attach(vit)
    assert sum(p.numel() for p in method.parameters()) == 2 * 2 * 32 * 4
    vit(images)


@torch.no_grad()
def test_a_hydra_of_few_bits_folds(vit, images):
    method = Hydra(2, bits=2)
    method.attach(vit)
    for parameter in method.parameters():
        torch.nn.init.normal_(parameter, 0.02, 0.1)
    expected = vit(images)[0]
    method.merge()
    torch.testing.assert_close(vit(images)[0], expected, rtol=1e-5, atol=1e-5)


def test_a_training_exports_a_packed_adapter(make_classifier):
    model = make_classifier('LoRA', rank=4, bits=2)
    metadata = adapter_metadata(SimpleNamespace(model=model, cfg=Config()), None)
    assert metadata['packed'] == {
        f'petl.local.layers/{block}/attn/qkv.{name}': {'bits': 2, 'shape': shape}
        for block in range(2)
        for name, shape in (('down', [4, 32]), ('up', [96, 4]))
    }
    plain = make_classifier('LoRA', rank=4)
    assert 'packed' not in adapter_metadata(SimpleNamespace(model=plain, cfg=Config()), None)
