"""Several methods on one backbone: every ordered pair works, or its refusal names both."""

import copy
import itertools

import pytest
import torch
from backbones import BACKBONES, NECKS, WIDTH, evaluating
from torch.nn import functional as F

from gleam_mm.models import params
from gleam_mm.petl import BitFit, Compose, LoRA, MergeError
from gleam_mm.registry import MODELS, OPTIM_WRAPPER_CONSTRUCTORS

LINEARS = ['qkv', 'proj', 'fc1', 'fc2']
METHODS = {
    'adapter': dict(type='Adapter', bottleneck=2),
    'adaptformer': dict(type='AdaptFormer', bottleneck=2),
    'bitfit': dict(type='BitFit'),
    'convpass': dict(type='Convpass', bottleneck=2),
    'dora': dict(type='HFPeft', config=dict(peft_type='LORA', r=2, use_dora=True)),
    'fact': dict(type='FacT', rank=2, alpha=0.5),
    'gleam': dict(type='GLEAM', rank=2, alpha=0.5),
    'glora': dict(type='GLoRA', rank=2, subnet=dict(A='vector', B='low-rank', E='vector')),
    'lora': dict(type='LoRA', rank=2, sites=LINEARS),
    'noah': dict(type='NOAH', subnet=dict(prompts=1, lora=2, adapter=1)),
    'repadapter': dict(type='RepAdapter', rank=2, scale=0.5),
    'ssf': dict(type='SSF'),
    'vpt': dict(type='VPT', num_prompts=2, deep=False),
}
# Both compute in the place of the same module.
CLASHES = {
    ('vit', frozenset(('dora', 'glora'))): r'(?=.*HFPeft)(?=.*GLoRA)',
    ('swin', frozenset(('dora', 'glora'))): r'(?=.*HFPeft)(?=.*GLoRA)',
    ('swin', frozenset(('noah', 'vpt'))): r'(?=.*prompts of NOAH)(?=.*VPT)',
}
MERGING = {'bitfit', 'dora', 'fact', 'glora', 'lora', 'repadapter', 'ssf'}


@pytest.fixture(scope='module', params=['vit', 'swin'])
def kind(request):
    return request.param


@pytest.fixture(scope='module')
def plain(kind):
    torch.manual_seed(0)
    return evaluating(BACKBONES[kind]())


def classifier(kind, plain, petl, seed=0):
    torch.manual_seed(seed)
    return evaluating(
        MODELS.build(
            dict(
                type='PETLClassifier',
                backbone=copy.deepcopy(plain),
                neck=NECKS[kind],
                head=dict(type='LinearClsHead', in_channels=WIDTH, num_classes=3),
                petl=copy.deepcopy(petl),
            )
        )
    )


def randomize(method):
    with torch.no_grad():
        for _, parameter in method.trainable_parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))


@pytest.mark.parametrize(('first', 'second'), list(itertools.permutations(METHODS, 2)))
def test_a_pair(first, second, kind, plain, images):
    petl = [METHODS[first], METHODS[second]]
    if clash := CLASHES.get((kind, frozenset((first, second)))):
        with pytest.raises(RuntimeError, match=f'{clash}.*only one can'):
            classifier(kind, plain, petl)
        return
    model = classifier(kind, plain, petl)
    trained = dict(model.petl.trainable_parameters())
    model.train()
    for _ in range(2):  # what starts at zero hides others in the first step
        loss = F.cross_entropy(model.head(model.extract_feat(images)), torch.tensor([0, 1]))
        loss.backward()
        randomize(model.petl)
    assert not [name for name, parameter in trained.items() if parameter.grad is None]
    model.eval()

    with torch.no_grad():
        expected = model(images)[0]
        twin = classifier(kind, plain, petl, seed=1)
        twin.load_state_dict(copy.deepcopy(model.state_dict()))
        assert torch.equal(twin(images)[0], expected)
        assert (plain(images)[0] - model.backbone(images)[0]).abs().max() > 1e-3

        if {first, second} <= MERGING:
            model.petl.merge()
            torch.testing.assert_close(model(images)[0], expected, rtol=1e-5, atol=2e-5)
            model.petl.unmerge()
        else:
            with pytest.raises(MergeError, match='cannot be merged'):
                model.petl.merge()
        assert torch.equal(model(images)[0], expected)
        adopted = {name for name, _ in model.petl.trainable_parameters() if 'backbone.' in name}
        model.petl.detach()
        if not adopted:
            assert torch.equal(model.backbone(images)[0], plain(images)[0])


def test_parts_have_names_and_rates_of_their_own(make_classifier):
    model = make_classifier('Compose', methods=dict(a=dict(type='LoRA'), b=dict(type='LoRA')))
    constructor = dict(
        type='DefaultOptimWrapperConstructor',
        optim_wrapper_cfg=dict(
            type='OptimWrapper', optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.01)
        ),
        paramwise_cfg=dict(custom_keys={'petl.local.b': dict(lr_mult=0.1, decay_mult=0.0)}),
    )

    optimizer = OPTIM_WRAPPER_CONSTRUCTORS.build(constructor)(model).optimizer
    rates = {
        id(p): (g['lr'], g['weight_decay']) for g in optimizer.param_groups for p in g['params']
    }
    for name, parameter in model.named_parameters():
        if name.startswith('petl.'):
            assert rates[id(parameter)] == ((0.1, 0.0) if '.b.' in name else (1.0, 0.01))


def test_what_is_shared_in_a_part_is_counted_as_shared(make_classifier):
    parts = METHODS['gleam'], METHODS['ssf']
    type_, options = parts[0]['type'], {k: v for k, v in parts[0].items() if k != 'type'}
    alone = params.count(make_classifier(type_, **options))
    both = params.count(make_classifier('Compose', methods=list(parts)))
    assert alone.shared > 0
    assert both.shared == alone.shared
    assert both.trainable == both.shared + both.local
    assert both.local > alone.local


def test_a_list_names_its_parts(vit):
    method = Compose([dict(type='LoRA'), BitFit(), dict(type='LoRA', sites=['fc1']), LoRA()])
    assert list(method.parts) == ['lora', 'bitfit', 'lora2', 'lora3']


def test_a_part_is_not_merged_or_detached_alone(vit):
    method = Compose([LoRA(2), BitFit()])
    method.attach(vit)
    for act in (method.parts['lora'].merge, method.parts['lora'].detach):
        with pytest.raises(RuntimeError, match=r'LoRA \(lora of Compose\) is a part of Compose'):
            act()
    method.merge()
    assert method.parts['lora'].merged


@pytest.mark.parametrize(
    ('methods', 'message'),
    [
        ([], 'at least one'),
        ({'a.b': dict(type='LoRA')}, 'has a dot'),
        ({'': dict(type='LoRA')}, "'' is no name"),
        ({'keys': dict(type='LoRA')}, "'keys' is no name, or one of PyTorch; choose another"),
        ({'training': dict(type='LoRA')}, "'training' is no name, or one of PyTorch"),
        (['LoRA'], 'neither a config'),
    ],
)
def test_bad_collections_are_named(methods, message):
    with pytest.raises((ValueError, TypeError), match=f'methods of Compose: .*{message}'):
        Compose(methods)
