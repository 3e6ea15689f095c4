"""How methods act together on one backbone, in several threads, and what merging keeps."""

import copy
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import gleam_mm  # first: torchvision may have to be mended before others import it

# isort: split

import pytest
import timm
import torch
from backbones import BACKBONES, evaluating
from torch import nn
from torch.nn.utils import prune

from gleam_mm.petl import SSF, Compose, LoRA, MergeError, PETLMethod, RepAdapter
from gleam_mm.registry import MODELS

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def plain_model():
    torch.manual_seed(0)
    sizes = dict(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=5)
    return timm.create_model('vit_tiny_patch16_224', **sizes)


def attach(backbone, *methods):
    for method in methods:
        method.attach(backbone)
        with torch.no_grad():
            for parameter in method.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return methods


def state(backbone):
    return {name: tensor.clone() for name, tensor in backbone.state_dict().items()}


def equal(backbone, before):
    now = backbone.state_dict()
    return now.keys() == before.keys() and all(torch.equal(now[k], before[k]) for k in now)


@torch.no_grad()
def test_merged_methods_may_be_unmerged_in_any_order_that_keeps_the_outputs(vit, images):
    before, plain = state(vit), vit(images)[0]
    first, second = attach(vit, LoRA(2, sites=['qkv']), LoRA(2, sites=['qkv', 'fc1']))
    both = vit(images)[0]
    with pytest.raises(MergeError, match=r'LoRA cannot be merged while LoRA is not, .*attn\.qkv'):
        second.merge()
    first.merge()
    second.merge()
    torch.testing.assert_close(vit(images)[0], both, rtol=0, atol=1e-5)
    merged = state(vit)
    with pytest.raises(MergeError, match='merge that first, and unmerge it last'):
        first.unmerge()
    assert equal(vit, merged)
    second.unmerge()
    first.unmerge()
    assert equal(vit, before)
    assert torch.equal(vit(images)[0], both)
    first.detach()
    second.detach()
    assert equal(vit, before)
    assert torch.equal(vit(images)[0], plain)


@torch.no_grad()
def test_a_weight_that_is_computed_is_not_merged_into(vit, images):
    prune.l1_unstructured(vit.layers[1].attn.qkv, 'weight', amount=0.3)
    before = state(vit)
    (method,) = attach(vit, LoRA(2))
    with torch.no_grad():
        adapted = vit(images)[0]
        with pytest.raises(MergeError, match=r"weight of 'layers\.1\.attn\.qkv' is computed"):
            method.merge()
        assert torch.equal(vit(images)[0], adapted)
    method.detach()
    assert equal(vit, before)


def test_with_blocks_what_is_outside_of_them_stays_as_it_is(backbone):
    (method,) = attach(backbone, SSF(blocks=[-1]))
    assert {site.block for site in method.sites.values()} == {
        max(site.block for site in method.layout.sites(['block']))
    }


@torch.no_grad()
def test_methods_at_different_modules_are_merged_and_unmerged_in_any_order(vit, images):
    before = state(vit)
    first, second = attach(vit, LoRA(2, sites=['qkv']), LoRA(2, sites=['fc1']))
    both = vit(images)[0]
    second.merge()
    first.merge()
    second.unmerge()
    torch.testing.assert_close(vit(images)[0], both, rtol=0, atol=1e-5)
    second.merge()
    first.detach()
    second.detach()
    assert equal(vit, before)
    assert vars(vit).keys() == vars(BACKBONES['vit']()).keys()


@torch.no_grad()
@pytest.mark.parametrize('order', [(0, 1, 2), (2, 1, 0), (1, 2, 0), (1, 0, 2)])
def test_inputs_and_outputs_adapted_at_one_linear_fold_from_the_inside_out(order, vit, images):
    made = LoRA(2, sites=['qkv']), RepAdapter(2, scale=0.5), SSF(sites=['qkv', 'fc1'])
    methods = attach(vit, *(made[index] for index in order))
    expected = vit(images)[0]
    adapting = [method for method in methods if not isinstance(method, RepAdapter)]
    for method in [*adapting, made[1]]:
        method.merge()
        torch.testing.assert_close(vit(images)[0], expected, rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16])
def test_a_backbone_that_is_moved_while_merged_is_given_back_where_it_is(dtype, vit, images):
    twin = copy.deepcopy(vit)
    owned = vit.layers[0].attn.qkv.weight
    made = attach(vit, LoRA(2, sites=['qkv']), SSF(sites=['qkv', 'norm']))
    for method in made:
        method.merge()
    for module in (vit, *made):
        module.to(dtype)
    made[1].unmerge()
    made[0].detach()
    assert vit.layers[0].attn.qkv.weight is owned
    assert equal(vit, {name: tensor.to(dtype) for name, tensor in state(twin).items()})
    vit(images.to(dtype))


class Failing(PETLMethod):
    """Creates half of its parameters, then fails; or computes where another does."""

    def __init__(self, build_fails):
        super().__init__(['fc1', 'qkv'])
        self.build_fails = build_fails

    def build(self, sites):
        self.shared['one'] = nn.Linear(2, 2)
        if self.build_fails:
            raise ValueError('cannot build')

    def before(self, site, x):
        return 2 * x

    def compute(self, site, x):
        return type(site.module).forward(site.module, x) + 1


@torch.no_grad()
@pytest.mark.parametrize('build_fails', [True, False])
def test_an_attach_that_fails_leaves_nothing_behind(build_fails, vit, images):
    plain, before = vit(images)[0], set(vars(vit))
    (dora,) = attach(
        vit, MODELS.build(dict(type='HFPeft', config=dict(peft_type='LORA', r=2, use_dora=True)))
    )
    adapted = vit(images)[0]
    method = Failing(build_fails)
    with pytest.raises((ValueError, RuntimeError), match=r'cannot build|only one can'):
        method.attach(vit)
    assert not method.attached
    assert len(method.shared) == (0 if build_fails else 1)
    assert torch.equal(vit(images)[0], adapted)
    dora.detach()
    assert torch.equal(vit(images)[0], plain)
    assert vars(vit).keys() == before
    assert not any('forward' in vars(module) for module in vit.modules())
    method.build_fails = False
    method.attach(vit)  # it can still be used elsewhere, or here when the other one has gone
    assert not torch.equal(vit(images)[0], plain)


class Watching(PETLMethod):
    """Notes when it was called, and how many tokens a block had, by their shape and their grid."""

    def __init__(self, notes):
        super().__init__(['block'])
        self.notes = notes

    def begin(self):
        self.notes.append(('begin', self))

    def before(self, site, x):
        self.notes.append((x.shape[1], self.layout.grid(site).tokens))
        return x

    def adapt(self, site, x, y):
        self.notes.append((y.shape[1], self.layout.grid(site).tokens))
        return y

    def end(self, output):
        self.notes.append(('end', self))
        return output


@torch.no_grad()
def test_passes_are_framed_from_the_outside_inwards_and_back(vit, images):
    notes = []
    first, second = attach(vit, Watching(notes), Watching(notes))
    vit(images)
    framing = [('begin', first), ('begin', second), ('end', second), ('end', first)]
    assert [note for note in notes if note != (17, 17)] == framing


@torch.no_grad()
@pytest.mark.parametrize('first', [0, 1])
def test_prompts_enclose_what_others_do_to_a_block(first, vit, images):
    """Others see as many tokens on its one side as on its other, whoever was attached first."""
    notes = []
    methods = [Watching(notes), MODELS.build(dict(type='VPT', num_prompts=3))]
    attach(vit, methods[first], methods[1 - first])
    vit(images)
    assert [note for note in notes if 'begin' not in note and 'end' not in note] == [(20, 20)] * 4


def test_a_build_that_fails_keeps_the_parts_that_were_given(vit):
    method = Failing(build_fails=True)
    method.local['given'] = given = LoRA(2)
    with pytest.raises(ValueError, match='cannot build'):
        method.attach(vit)
    assert method.parts == {'given': given}
    assert not given.attached


@torch.no_grad()
def test_a_method_follows_the_mode_of_its_backbone(vit, images):
    (method,) = attach(vit, MODELS.build(dict(type='GLEAM', rank=4)))
    assert method.training
    vit.eval()
    assert torch.equal(vit(images)[0], vit(images)[0])
    vit.train()
    assert not torch.equal(vit(images)[0], vit(images)[0])


@pytest.mark.parametrize('kind', BACKBONES)
@pytest.mark.parametrize(
    'petl',
    [
        dict(type='GLEAM', rank=4),
        dict(type='Convpass', bottleneck=4),
        dict(type='VPT', num_prompts=3),
        dict(type='VPT', num_prompts=3, deep=False),
        dict(type='NOAH', subnet=dict(prompts=2, lora=2, adapter=2)),
        dict(type='AdaptFormer', bottleneck=4),
    ],
    ids=lambda petl: petl['type'],
)
@torch.no_grad()
def test_threads_with_images_of_different_sizes_do_not_meet(kind, petl):
    options = {'timm-vit': dict(dynamic_img_size=True), 'timm-swin': dict(strict_img_size=False)}
    backbone = evaluating(BACKBONES[kind](**options.get(kind, {})))
    attach(backbone, MODELS.build(petl))
    sizes = [(32, 64), (64, 32), (32, 32), (48, 32), (32, 48), (64, 64), (16, 64), (48, 48)]
    batches = [torch.randn(2, 3, *size) for size in sizes]
    expected = [backbone(images)[-1] for images in batches]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # threads take turns within a pass
    try:
        with ThreadPoolExecutor(8) as pool:
            for _ in range(3):
                outputs = pool.map(lambda images: backbone(images)[-1], batches)
                for found, wanted in zip(outputs, expected, strict=True):
                    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    finally:
        sys.setswitchinterval(interval)


def test_a_second_method_is_told_of_the_first(vit):
    first, second = LoRA(2), SSF()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        first.attach(vit)
        first.detach()
        Compose([LoRA(2), SSF()]).attach(BACKBONES['vit']())
        first.attach(vit)
    with pytest.warns(
        UserWarning, match='SSF is attached to a backbone that has LoRA already'
    ) as told:
        second.attach(vit)
    assert [warning.filename for warning in told] == [__file__]
    assert first.attached and second.attached


@pytest.mark.parametrize(
    'change',
    [
        lambda method, compiled: method.merge(),
        lambda method, compiled: (method.merge(), compiled(IMAGES), method.unmerge()),
        lambda method, compiled: gleam_mm.detach(compiled),
    ],
    ids=['merged', 'unmerged', 'detached'],
)
def test_a_compiled_model_follows_what_is_plugged(change):
    """A compiler takes the hooks of modules for unchanged."""
    model = plain_model()
    method = gleam_mm.attach(model, 'lora')
    for parameter in method.parameters():
        nn.init.normal_(parameter)
    compiled = torch.compile(model.eval(), backend='eager')
    with torch.no_grad():
        compiled(IMAGES)
        change(method, compiled)
        assert torch.equal(compiled(IMAGES), model(IMAGES))


def compiled_blocks(model):
    for block in model.blocks:
        block.compile(backend='eager')
    return model


def wrapped_blocks(model):
    for index, block in enumerate(model.blocks):
        model.blocks[index] = torch.compile(block, backend='eager')
    return model


def compiled_features(model):
    features = torch.compile(model.forward_features, backend='eager')
    return lambda images: model.forward_head(features(images))


@torch.no_grad()
@pytest.mark.parametrize(
    ('method', 'compile_parts'),
    [
        (dict(type='LoRA', rank=2), compiled_blocks),
        (dict(type='LoRA', rank=2), wrapped_blocks),
        (dict(type='LoRA', rank=2), compiled_features),
        ('gleam-l', compiled_blocks),
        pytest.param('gleam-l', wrapped_blocks, marks=pytest.mark.slow),
        pytest.param('gleam-l', compiled_features, marks=pytest.mark.slow),
    ],
)
def test_compiled_parts_follow_what_is_plugged(method, compile_parts):
    """The backbone itself is not compiled then, and its hooks hear of no compiler."""
    torch.compiler.reset()
    model, eager = plain_model().eval(), plain_model().eval()
    compiled = compile_parts(model)
    assert torch.equal(compiled(IMAGES), eager(IMAGES))
    acts = ('merge', 'unmerge') if method != 'gleam-l' else ()
    for _ in range(2):  # a second time, for a compiler may have kept what the first one made
        for one in (model, eager):
            torch.manual_seed(0)
            for parameter in gleam_mm.attach(one, method).parameters():
                nn.init.normal_(parameter, std=0.1)
        torch.testing.assert_close(compiled(IMAGES), eager(IMAGES))
        for act in acts:
            for one in (model, eager):
                getattr(one.petl, act)()
            torch.testing.assert_close(compiled(IMAGES), eager(IMAGES))
        for one in (model, eager):
            gleam_mm.detach(one)
        torch.testing.assert_close(compiled(IMAGES), eager(IMAGES))


@pytest.mark.parametrize('name', ['MoSA', 'DyLoRA', 'GLoRA'])
def test_a_pass_of_parts_draws_of_its_own(name):
    model = plain_model()
    method = gleam_mm.attach(model, dict(type=name))
    model.train()
    for step in range(3):
        assert method.step == step
        model.forward_features(IMAGES)


def test_a_pass_of_parts_leaves_no_losses_of_the_one_before():
    model = plain_model()
    method = gleam_mm.attach(model, dict(type='MoLA', balance=0.01))
    model.train()
    model.forward_features(IMAGES)
    (once,) = method.all_losses().values()
    for _ in range(2):
        model.forward_features(IMAGES)
    (twice,) = method.all_losses().values()
    assert torch.equal(once, twice)


def test_nothing_prepared_outlives_a_pass_that_failed():
    model = plain_model()
    method = gleam_mm.attach(model, 'lora')
    model.train()

    def fail(*_):
        raise KeyError('a fault in the head')

    handle = model.head.register_forward_hook(fail)
    with pytest.raises(KeyError):
        model(IMAGES)
    handle.remove()
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.normal_()
    found = model.forward_features(IMAGES)
    model.head = nn.Identity()
    assert torch.equal(model.forward_head(found, pre_logits=True), model(IMAGES))
