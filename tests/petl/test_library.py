"""Methods that are made of trained ones, against their equations, and out of files."""

import copy

import pytest
import torch
from backbones import CONFIGS, WIDTH, evaluating
from peft.tuners.lora.arrow import ArrowLoraLinearLayer
from peft.tuners.lora.config import ArrowConfig

from gleam_mm.checkpoint import FINGERPRINT, CheckpointError, save_adapter
from gleam_mm.checkpoint.compress import compress
from gleam_mm.models import load_model
from gleam_mm.petl import EigenLoRA
from gleam_mm.registry import MODELS

LORA = dict(type='LoRA', rank=2, alpha=6.0)
QKV = 'layers.0.attn.qkv'


@pytest.fixture
def build(tmp_path):
    """Builds a classifier of one pretrained backbone."""
    weights = tmp_path / 'weights.pth'
    torch.manual_seed(0)
    torch.save(MODELS.build(copy.deepcopy(CONFIGS['vit'])).state_dict(), weights)
    named = dict(type='Pretrained', checkpoint=str(weights))

    def make(petl, seed=0, **options):
        torch.manual_seed(seed)
        return evaluating(
            MODELS.build(
                dict(
                    type='PETLClassifier',
                    backbone={**copy.deepcopy(CONFIGS['vit']), 'init_cfg': named},
                    head=dict(type='LinearClsHead', in_channels=WIDTH, num_classes=3),
                    petl=copy.deepcopy(petl),
                    **options,
                )
            )
        )

    return make


@pytest.fixture
def file_of(build, tmp_path):
    """Writes an adapter whose parameters have moved; gives the file and the model."""

    def write(petl, seed):
        model = build(petl, seed)
        with torch.no_grad():
            for _, parameter in model.petl.trainable_parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        return save(model, tmp_path / f'{seed}.safetensors'), model

    return write


def save(model, file):
    tensors = {name: t for name, t in model.state_dict().items() if name != FINGERPRINT}
    save_adapter(
        file,
        tensors,
        dict(model.description, backbone_fingerprint=model.backbone_fingerprint()),
    )
    return file


def at(method, name):
    """What a method does at a site: its site there."""
    return next(site for site in method.sites.values() if site.name == name)


def delta(model, name=QKV):
    down, up = model.petl.factors(at(model.petl, name))
    return model.petl.scale * up @ down


@torch.no_grad()
def test_a_frozen_adapter_acts_below_a_new_one(build, file_of, tmp_path, images):
    file, old = file_of(dict(type='Adapter', bottleneck=4), 1)
    petl = dict(type='Compose', methods=dict(new=dict(type='LoRA', rank=2)))
    model = build(petl, 2, adapters=dict(old=str(file)))
    assert torch.equal(model.backbone(images)[0], old.backbone(images)[0])  # the LoRA is at zero
    trained = {name for name, _ in model.petl.trainable_parameters()}
    assert trained and all(name.startswith('local.new.') for name in trained)
    assert not any(p.requires_grad for p in model.petl.parts['old'].parameters())
    model.train()
    model.backbone(images)
    assert not model.petl.parts['old'].training and model.petl.parts['new'].training

    compress(file, tmp_path / 'small.safetensors', '8')
    small = build(petl, 2, adapters=dict(old=str(tmp_path / 'small.safetensors')))
    error = (small.backbone(images)[0] - old.backbone(images)[0]).abs().max()
    assert 0 < error < 0.1

    # What is saved needs the other file no more.
    for parameter in model.petl.parts['new'].parameters():
        parameter.add_(0.1)
    model.eval()
    written = save(model, tmp_path / 'both.safetensors')
    file.unlink()
    assert torch.equal(load_model(checkpoint=written)(images), model(images))


@torch.no_grad()
def test_adapter_fusion_is_its_equation(build, file_of, images):
    kinds = dict(
        a=dict(type='LoRA', rank=2, sites=['fc2']),
        b=dict(type='Adapter', bottleneck=3),
        c=dict(type='Adapter', bottleneck=5),
    )
    files, models = zip(
        *(file_of(petl, seed) for seed, petl in enumerate(kinds.values())), strict=True
    )
    adapters = {name: str(file) for name, file in zip(kinds, files, strict=True)}
    model = build(dict(type='AdapterFusion', rank=7), 5, adapters=adapters)
    for _, parameter in model.petl.trainable_parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
    site = at(model.petl, 'layers.1.ffn.layers.1')
    x, y = torch.randn(2, 5, 128), torch.randn(2, 5, 32)
    updates = [m.petl.adapt(at(m.petl, site.name), x, y.clone()) - y for m in models]
    own = model.petl.local[site.key]
    scores = torch.stack([(own.query(y) * own.key(u)).sum(-1) for u in updates])
    mixed = sum(s[..., None] * u for s, u in zip(scores.softmax(0), updates, strict=True))
    expected = y + mixed @ own.value.weight.T
    torch.testing.assert_close(model.petl.adapt(site, x, y.clone()), expected)

    # The adapters act through the fusion alone: with all of V at zero they do nothing.
    for fusion in model.petl.modules():
        if hasattr(fusion, 'value') and isinstance(fusion.value, torch.nn.Linear):
            fusion.value.weight.zero_()
    plain = build(dict(type='LinearProbe'))
    torch.testing.assert_close(model.backbone(images), plain.backbone(images))


@pytest.mark.parametrize('ranks', [(2, 3, 4), (2, 2, 2)])
@torch.no_grad()
def test_arrow_routes_as_peft_does(build, file_of, ranks):
    made = [file_of({**LORA, 'rank': rank}, seed) for seed, rank in enumerate(ranks)]
    files, models = zip(*made, strict=True)
    adapters = {str(i): str(file) for i, file in enumerate(files)}
    model = build(dict(type='Arrow', top_k=2, temperature=0.5), 0, adapters=adapters)
    assert not list(model.petl.trainable_parameters())
    site = at(model.petl, QKV)
    x, y = torch.randn(2, 5, 32), torch.randn(2, 5, 96)
    found = model.petl.adapt(site, x, y.clone())

    directions = []
    for m in models:
        vh = torch.linalg.svd(delta(m))[2]
        directions.append(vh[0])
    scores = (x @ torch.stack(directions).T).abs() / 0.5
    expected = y.clone()
    for b in range(2):
        for token in range(5):
            best = scores[b, token].topk(2)
            for gate, k in zip(best.values.softmax(0), best.indices, strict=True):
                expected[b, token] += gate * delta(models[k]) @ x[b, token]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)

    if len(set(ranks)) > 1:
        return  # which PEFT's does not take
    names = [f'task_{i}' for i in range(3)]
    config = ArrowConfig(top_k=2, router_temperature=0.5)
    config.task_adapter_names, config.gks_adapter_names = names, []
    theirs = ArrowLoraLinearLayer(32, config)
    downs, ups, scaling = {}, {}, {}
    for name, m in zip(names, models, strict=True):
        down, up = m.petl.factors(at(m.petl, QKV))
        downs[name], ups[name] = linear(down), linear(up)
        scaling[name] = m.petl.scale
    dropout = torch.nn.Identity()
    downs, ups = torch.nn.ModuleDict(downs), torch.nn.ModuleDict(ups)
    theirs.prototypes = torch.stack(directions)  # which PEFT finds by 15 steps of an iteration
    told = theirs(x, downs, ups, dropout, scaling)
    torch.testing.assert_close(found, y + told, rtol=1e-3, atol=1e-4)


def linear(weight):
    made = torch.nn.Linear(*weight.T.shape, bias=False)
    made.weight.copy_(weight)
    return made


@torch.no_grad()
def test_a_library_spans_its_own_members(build, file_of):
    """With as many directions as ranks, coefficients give each LoRA of the library exactly."""
    files, models = zip(*(file_of(LORA, seed) for seed in (1, 2, 3)), strict=True)
    adapters = {str(i): str(file) for i, file in enumerate(files)}
    petl = dict(type='EigenLoRA', components=6, rank=2, alpha=6.0)
    model = build(petl, 0, adapters=adapters)
    own = model.petl.local[at(model.petl, QKV).key]
    for directions in (own.reads, own.writes):
        torch.testing.assert_close(directions @ directions.T, torch.eye(6), atol=1e-5, rtol=0)
    for m in models:
        down, up = m.petl.factors(at(m.petl, QKV))
        own.down.copy_(down @ own.reads.T)
        own.up.copy_(own.writes @ up)
        torch.testing.assert_close(delta_of(own, 3.0), delta(m), rtol=1e-4, atol=1e-5)
    # Fewer directions are those of the largest singular values.
    few = build({**petl, 'components': 2}, 0, adapters=adapters)
    rows = torch.cat([m.petl.factors(at(m.petl, QKV))[0] for m in models])
    best = torch.linalg.svd(rows)[2][:2]
    found = few.petl.local[at(few.petl, QKV).key].reads
    torch.testing.assert_close(found.T @ found, best.T @ best, rtol=1e-4, atol=1e-5)


def delta_of(own, scale):
    down, up = own.factors()
    return scale * up @ down


def test_what_does_not_fit_is_refused(build, file_of, tmp_path):
    lora, _ = file_of(LORA, 1)
    bitfit, _ = file_of(dict(type='BitFit'), 2)
    adapter, _ = file_of(dict(type='Adapter', bottleneck=2), 3)
    gated, _ = file_of({**LORA, 'gate': True}, 4)
    fusion, arrow = dict(type='AdapterFusion'), dict(type='Arrow')
    for petl, adapters, told in (
        (fusion, dict(a=lora), 'give two at least'),
        (fusion, dict(a=lora, b=adapter), "'a' and 'b' act at different sites"),
        (fusion, dict(a=lora, b=bitfit), 'of the backbone itself'),
        (arrow, dict(a=adapter), "'a' is a Adapter, no LoRA"),
        (arrow, dict(a=gated), "'a' has a gate of tokens"),
        ({**arrow, 'top_k': 2}, dict(a=lora), 'there are 1 LoRAs'),
        (dict(type='EigenLoRA', components=3), dict(a=lora), 'have 2 ranks together'),
        (dict(type='EigenLoRA', sites=['fc1']), dict(a=lora), "'a' has no LoRA at"),
        (dict(type='SSF'), dict(a=lora), 'SSF takes no trained adapters'),
        (dict(type='Compose', methods=dict(a={**LORA, 'alpha': 1.0})), dict(a=lora), 'petl.alpha'),
        (dict(type='Compose', methods=[LORA]), dict(a=tmp_path / 'none'), 'no such file'),
    ):
        files = {name: str(file) for name, file in adapters.items()}
        with pytest.raises((ValueError, CheckpointError, FileNotFoundError), match=told):
            build(petl, adapters=files)
    with pytest.raises(ValueError, match="Compose has no method 'b'; it has a"):
        build(dict(type='Compose', methods=dict(a=LORA), frozen=['b']))
    with pytest.raises(ValueError, match='RepAdapter does not only adapt the outputs'):
        build(
            dict(type='AdapterFusion', methods=[dict(type='RepAdapter'), dict(type='RepAdapter')])
        )
    file, model = file_of(LORA, 4)
    metadata = dict(model.description, backbone_fingerprint=64 * '0')
    save_adapter(file, {k: t for k, t in model.state_dict().items() if k != FINGERPRINT}, metadata)
    with pytest.raises(CheckpointError, match=f'fingerprint {64 * "0"}, but'):
        build(dict(type='Compose'), adapters=dict(a=str(file)))


def test_more_directions_than_a_site_is_wide_are_refused(vit):
    with pytest.raises(
        ValueError, match='components=33 exceeds the 32 directions that there are at'
    ):
        EigenLoRA(33).attach(vit)
    EigenLoRA(32).attach(vit)
