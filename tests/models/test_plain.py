"""Methods on models of timm, in a loop of the user's own."""

import copy
import pickle
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from timm.models.vision_transformer import ResPostBlock
from timm.optim import param_groups_layer_decay
from timm.utils import ModelEma
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn

import gleam_mm
from gleam_mm.arguments import ArgumentError
from gleam_mm.checkpoint import CheckpointError, read_adapter, save_adapter
from gleam_mm.checkpoint.compress import compress
from gleam_mm.combine import combine
from gleam_mm.config import RecipeError, recipes
from gleam_mm.models import plain, timm_models

VIT = dict(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2)
SWIN = dict(img_size=32, patch_size=2, embed_dim=16, depths=(2, 2), num_heads=(2, 2), window_size=4)
OPTIONS = {
    key: value for key, value in VIT.items() if key != 'img_size'
}  # which a model does not tell


def vit(seed=0, **options):
    torch.manual_seed(seed)
    name = 'vit_tiny_patch16_224.augreg_in21k'
    return timm.create_model(name, **{'num_classes': 3, **VIT, **options}).eval()


def swin(seed=0):
    torch.manual_seed(seed)
    return timm.create_model('swin_tiny_patch4_window7_224', num_classes=3, **SWIN).eval()


def train(model, images, steps=3):
    """A plain loop."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2)
    model.train()
    losses = []
    for _ in range(steps):
        loss = nn.functional.cross_entropy(model(images), torch.tensor([0, 1]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    return losses


@pytest.mark.parametrize('build', [vit, swin])
@pytest.mark.parametrize(
    'method', ['gleam-l', 'bitfit', dict(type='LoRA', rank=2), ['vpt-deep', dict(type='SSF')]]
)
def test_a_plain_loop_trains_the_method_and_the_head(build, method, images, tmp_path):
    model = build()
    before = copy.deepcopy(model.state_dict())
    petl = gleam_mm.attach(model, method)
    adopted = {name.removeprefix('backbone.') for name, _ in petl.trainable_parameters()}
    losses = train(model, images)
    assert losses[-1] < losses[0]
    head = 'head.' if build is vit else 'head.fc.'
    for name, tensor in before.items():
        changed = not torch.equal(tensor, model.state_dict()[name])
        assert changed == (name in adopted or name in (f'{head}weight', f'{head}bias')), name

    gleam_mm.save(model, tmp_path / 'a.safetensors', options=OPTIONS if build is vit else SWIN)
    tensors, _ = read_adapter(tmp_path / 'a.safetensors')
    assert tensors.keys() == {n for n, p in model.named_parameters() if p.requires_grad}
    again = build()
    gleam_mm.load(again, tmp_path / 'a.safetensors')
    assert torch.equal(again(images), model(images))
    trained = {name for name, p in again.named_parameters() if p.requires_grad}
    assert trained == tensors.keys()


class Losing(nn.Module):
    """A model as the Trainer of transformers wants it: it tells its loss."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images, labels):
        logits = self.model(images)
        return {'loss': nn.functional.cross_entropy(logits, labels), 'logits': logits}


def test_the_trainer_of_transformers_trains_the_method_and_the_head(images, tmp_path):
    transformers = pytest.importorskip('transformers')
    pytest.importorskip('accelerate', reason='the Trainer needs it')
    model = vit()
    gleam_mm.attach(model, 'gleam-l')
    before = copy.deepcopy(model.state_dict())
    told = transformers.TrainingArguments(
        str(tmp_path),
        max_steps=3,
        report_to=[],
        use_cpu=True,
        save_strategy='no',
        disable_tqdm=True,
    )
    data = [{'images': image, 'labels': number % 3} for number, image in enumerate(images)]
    transformers.Trainer(Losing(model), told, train_dataset=data).train()
    changed = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    assert {name.partition('.')[0] for name in changed} == {'petl', 'head'}
    gleam_mm.save(model, tmp_path / 'a.safetensors')
    again = vit()
    gleam_mm.load(again, tmp_path / 'a.safetensors')
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(images), model.eval()(images))


def test_detach_gives_the_model_back(images):
    model = vit()
    before, outputs = copy.deepcopy(model.state_dict()), model(images)
    gleam_mm.attach(model, 'lora', rank=2)
    for _, parameter in model.petl.trainable_parameters():
        nn.init.normal_(parameter)
    assert not torch.equal(model(images), outputs)
    assert gleam_mm.detach(model) is model
    assert model.state_dict().keys() == before.keys()
    assert torch.equal(model(images), outputs)
    assert all(p.requires_grad for p in model.parameters())
    with pytest.raises(RuntimeError, match=r'has no method: call gleam_mm\.attach'):
        gleam_mm.detach(model)


@pytest.mark.parametrize(
    'kept', [lambda model: model, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))]
)
def test_detach_lets_learn_what_had_learned_before(kept):
    model = vit()
    model.blocks[0].requires_grad_(False)
    before = learning(model)
    gleam_mm.attach(model, 'lora', rank=2)
    assert learning(gleam_mm.detach(kept(model))) == before


def test_options_go_over_those_of_a_preset():
    model = vit()
    assert gleam_mm.attach(model, 'gleam-l', rank=4).rank == 4
    with pytest.raises(RuntimeError, match='has a method already'):
        gleam_mm.attach(model, 'lora')


@pytest.mark.parametrize(
    'call',
    [
        lambda: gleam_mm.attach('vit', 'lora'),
        lambda: gleam_mm.detach('vit'),
        lambda: gleam_mm.save('vit', 'a.safetensors'),
        lambda: gleam_mm.load('vit', 'a.safetensors'),
        lambda: gleam_mm.save_peft('vit', 'folder'),
        lambda: gleam_mm.load_peft('vit', 'folder'),
    ],
)
def test_a_name_is_no_model(call):
    with pytest.raises(TypeError, match=r"^'vit' is no model: give a torch\.nn\.Module .*\)$"):
        call()


def test_attach_refuses():
    model = vit()
    with pytest.raises(RecipeError, match=r'method=gleam-m: unknown method .*gleam-l'):
        gleam_mm.attach(model, 'gleam-m')
    with pytest.raises(TypeError, match='rank: the options of several methods'):
        gleam_mm.attach(model, ['lora', 'ssf'], rank=2)
    with pytest.raises(TypeError, match='give the config of the method'):
        gleam_mm.attach(model, gleam_mm.petl.LoRA())
    with pytest.raises(ArgumentError, match=r"adapters=\['a'\]: give each file a name"):
        gleam_mm.attach(model, dict(type='Arrow'), adapters=['a'])
    with pytest.raises(ValueError, match='no layout supports the backbone Linear'):
        gleam_mm.attach(nn.Linear(2, 2), 'lora')
    for kind in ('LinearClsHead', 'torch.nn.Linear'):
        with pytest.raises(ValueError, match=f"type='{kind}' is no PETL method"):
            gleam_mm.attach(model, dict(type=kind))
    for method in (None, 5, ['lora', None]):
        with pytest.raises(TypeError, match=r'method=(None|5): give the name of a preset'):
            gleam_mm.attach(model, method)
    for method in (dict(rank=3), [dict(rank=3)], dict(type='Compose', methods=[dict(rank=3)])):
        with pytest.raises(ValueError, match=r"{'rank': 3}: the config of a method has its type"):
            gleam_mm.attach(model, method)
    for method in (dict(type='LORAA'), ['lora', dict(type='LORAA')]):
        with pytest.raises(ValueError, match=r"'LORAA': there is no such model \(did you mean 'L"):
            gleam_mm.attach(model, method)
    assert all(p.requires_grad for p in model.parameters())
    assert not hasattr(model, 'petl')


_SIZES = {  # of presets that do not fit a width of 32
    'consolidator': dict(groups=8),
    'c3a': dict(config=dict(peft_type='C3A', block_size=8)),
    'lt-sft': dict(number=100),
    'road': dict(config=dict(peft_type='ROAD', group_size=32)),
    'sct': dict(number=8),
    'soka': dict(number=2),
    'spt-adapter': dict(budget=9000),
    'spt-lora': dict(budget=9000),
    'vblora': dict(config=dict(peft_type='VBLORA', vector_length=32)),
}


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('preset', recipes.families()['methods'])
def test_every_preset_trains_in_the_precision_of_the_model(preset, dtype, images):
    model = vit(depth=1).to(dtype)
    petl = gleam_mm.attach(model, preset, **_SIZES.get(preset, {}))
    assert {p.dtype for p in model.parameters() if p.is_floating_point()} == {dtype}
    told = model.train()(images.to(dtype))
    (told.float().square().sum() + sum(petl.all_losses().values())).backward()
    with torch.no_grad():
        told = model.eval()(images.to(dtype))
        assert told.dtype == dtype
        exact = copy.deepcopy(model).float()(images.to(dtype).float())
    torch.testing.assert_close(told.float(), exact, rtol=0.1, atol=0.1)


def test_the_precision_is_that_of_most_weights(images):
    model = vit().bfloat16()
    model.norm.float()
    assert gleam_mm.attach(model, 'lora').local['blocks/0/attn/qkv'].down.dtype == torch.bfloat16
    model = vit().double()
    gleam_mm.attach(model, 'lora')
    assert model(images.double()).dtype == torch.float64


def test_a_method_in_more_bits_than_the_model_is_loaded_in_those(tmp_path):
    model, path = vit().bfloat16(), tmp_path / 'a.safetensors'
    gleam_mm.attach(model, 'lora', rank=2).float()
    for parameter in model.petl.parameters():
        nn.init.normal_(parameter)
    gleam_mm.save(model, path, options=OPTIONS)
    again = vit().bfloat16()
    gleam_mm.load(again, path)
    for name, tensor in model.petl.state_dict().items():
        assert torch.equal(again.petl.state_dict()[name], tensor), name
    assert again.head.weight.dtype == torch.bfloat16
    told = r'a\.safetensors: it was trained on weights in bfloat16, but .* float32: .*torch\.bf'
    with pytest.raises(CheckpointError, match=told):
        gleam_mm.load(vit(), path)


def hf_vit():
    transformers = pytest.importorskip('transformers')
    sizes = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    told = transformers.ViTConfig(**sizes, image_size=32, patch_size=8, num_labels=3)
    return transformers.ViTForImageClassification(told)


def hf_deit():
    transformers = pytest.importorskip('transformers')
    sizes = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    told = transformers.DeiTConfig(**sizes, image_size=32, patch_size=8, num_labels=3)
    return transformers.DeiTForImageClassificationWithTeacher(told)


def tv_vit():
    return torchvision.models.VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=3)


def tv_swin():
    return torchvision.models.SwinTransformer([2, 2], 16, [2, 2], [2, 2], [4, 4], num_classes=3)


@pytest.mark.parametrize(
    ('build', 'heads'),
    [
        (hf_vit, {'classifier'}),
        (hf_deit, {'cls_classifier', 'distillation_classifier'}),
        (tv_vit, {'heads.head'}),
        (tv_swin, {'head'}),
    ],
)
def test_the_classifiers_of_other_libraries_are_trained_and_saved(build, heads, images, tmp_path):
    def logits(model):
        with torch.no_grad():
            return getattr(told := model.eval()(images), 'logits', told)

    torch.manual_seed(0)
    model = build()
    before = copy.deepcopy(model)
    gleam_mm.attach(model, dict(type='LoRA', rank=2, sites=['proj']))
    outside = {name for name in learning(model) if not name.startswith('petl.')}
    assert outside == {f'{head}.{kind}' for head in heads for kind in ('weight', 'bias')}
    for name in outside:
        nn.init.normal_(model.get_parameter(name))
    with pytest.warns(UserWarning, match='will not say how to build its model'):
        gleam_mm.save(model, tmp_path / 'a.safetensors', classes=['a', 'b', 'c'])
    again = copy.deepcopy(before)
    gleam_mm.load(again, tmp_path / 'a.safetensors')
    assert torch.equal(logits(again), logits(model))
    assert learning(again) == learning(model)

    # A file of when classifiers were frozen
    old = copy.deepcopy(before)
    gleam_mm.attach(old, dict(type='LoRA', rank=2, sites=['proj']))
    for head in heads:
        old.get_submodule(head).requires_grad_(False)
    with pytest.warns(UserWarning, match='will not say how to build its model'):
        gleam_mm.save(old, tmp_path / 'old.safetensors')
    again = copy.deepcopy(before)
    gleam_mm.load(again, tmp_path / 'old.safetensors')
    assert learning(again) == learning(old)
    files = {name: tmp_path / f'{name}.safetensors' for name in ('a', 'old')}
    gleam_mm.attach(before, dict(type='AdapterFusion', rank=3), adapters=files)


class Renamed(torchvision.models.VisionTransformer):
    """One of a user's, whose classifier is called otherwise."""

    def __init__(self):
        super().__init__(32, 8, 2, 2, 32, 64, num_classes=3)
        self.tail = self.heads
        del self.heads

    def forward(self, x):
        tokens = self._process_input(x)
        tokens = torch.cat([self.class_token.expand(len(x), -1, -1), tokens], dim=1)
        return self.tail(self.encoder(tokens)[:, 0])


def test_a_classifier_that_is_not_found_is_told():
    with pytest.warns(UserWarning, match='Renamed has no heads or head: its classifier is not'):
        gleam_mm.attach(Renamed(), dict(type='LoRA', rank=2, sites=['proj']))


def held(model):
    """What a model has beside its weights."""
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    return hooks, vars(model).keys(), learning(model), list(model.state_dict())


@pytest.mark.filterwarnings('error:Renamed has no')
def test_a_warning_that_is_an_error_leaves_the_model_as_it_was():
    model = Renamed()
    model.conv_proj.requires_grad_(False)
    before = held(model)
    for _ in range(2):
        with pytest.raises(UserWarning, match='its classifier is not'):
            gleam_mm.attach(model, dict(type='LoRA', rank=2, sites=['proj']))
        assert held(model) == before


def test_an_attachment_that_fails_at_any_moment_leaves_the_model_as_it_was(monkeypatch, images):
    model = vit()
    model.patch_embed.requires_grad_(False)
    before, expected = held(model), model(images)

    def fail(*_):
        raise KeyboardInterrupt

    for owner, name in (
        (gleam_mm.petl.LoRA, 'to'),
        (plain, 'classifiers'),
        (plain, 'still'),
        (plain, 'remember_trained'),
    ):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(owner, name, fail)
            gleam_mm.attach(model, dict(type='LoRA', rank=2))
        assert held(model) == before
    assert torch.equal(model(images), expected)


def test_a_classifier_that_was_replaced(images, tmp_path):
    model = vit(num_classes=1000)
    model.head = nn.Linear(32, 2)
    again = vit(num_classes=2)
    again.load_state_dict(model.state_dict())
    gleam_mm.attach(model, 'lora')
    path = tmp_path / 'a.safetensors'
    with pytest.raises(ValueError, match='classes has 3 names, but the model has 2 outputs'):
        gleam_mm.save(model, path, classes=['a', 'b', 'c'])
    gleam_mm.save(model, path, classes=['a', 'b'], options=OPTIONS)
    assert read_adapter(path)[1]['model']['options']['num_classes'] == 2
    gleam_mm.load(again, path)
    assert torch.equal(again(images), model(images))


@pytest.mark.parametrize('wrap', [torch.compile, nn.DataParallel, AveragedModel])
def test_a_model_that_is_wrapped(wrap, images, tmp_path):
    model = vit()
    gleam_mm.attach(model, 'lora', rank=2)
    for parameter in model.petl.parameters():
        nn.init.normal_(parameter)
    wrapped, path = wrap(model), tmp_path / 'a.safetensors'
    gleam_mm.save(wrapped, path, options=OPTIONS)
    again = vit()
    gleam_mm.load(wrap(again) if wrap is not AveragedModel else again, path)
    assert torch.equal(again(images), model(images))
    with pytest.raises(RuntimeError, match='has a method already'):
        gleam_mm.attach(wrapped, 'lora')
    gleam_mm.save_peft(wrapped, tmp_path / 'peft')
    assert gleam_mm.detach(wrapped) is wrapped
    with pytest.raises(RuntimeError, match='this VisionTransformer has no method'):
        gleam_mm.save(wrapped, path)


@pytest.mark.parametrize(
    ('wrap', 'path'),
    [
        (torch.compile, '_orig_mod'),
        (nn.DataParallel, 'module'),
        (lambda model: nn.DataParallel(torch.compile(model)), r'module\._orig_mod'),
    ],
)
def test_a_wrapper_says_where_the_model_is(wrap, path):
    wrapped = wrap(vit())
    told = rf'this \w+ wraps its \.{path}, a VisionTransformer: give that one, and wrap it after'
    with pytest.raises(ValueError, match=told):
        gleam_mm.attach(wrapped, 'lora')
    with pytest.raises(ValueError, match=told):
        gleam_mm.petl.LoRA().attach(wrapped)


@pytest.mark.parametrize('trained', [True, False])
def test_a_merged_method_is_not_loaded_into(trained, images, tmp_path):
    model, path = vit(), tmp_path / 'a.safetensors'
    petl = gleam_mm.attach(model, 'lora', rank=2)
    gleam_mm.save(model, path, options=OPTIONS)
    if trained:
        for parameter in petl.parameters():
            nn.init.normal_(parameter)
    petl.merge()
    before = model(images)
    with pytest.raises(CheckpointError, match=r'call petl\.unmerge\(\) before loading'):
        gleam_mm.load(model, path)
    assert petl.merged and torch.equal(model(images), before)
    petl.unmerge()
    gleam_mm.load(model, path)
    assert torch.equal(model(images), vit()(images))


@torch.no_grad()
@pytest.mark.parametrize(
    'kept', [lambda model: model, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))]
)
@pytest.mark.parametrize('strict', [True, False])
def test_a_state_dict_is_not_loaded_over_a_merged_method(strict, kept, images):
    model = vit()
    for parameter in gleam_mm.attach(model, 'lora', rank=2).parameters():
        nn.init.normal_(parameter)
    expected, state = model(images), copy.deepcopy(model.state_dict())
    model.petl.merge()
    model = kept(model)
    merged = model(images)
    told = r'merged into the weights of this \w+, and blocks\.0\.attn\.qkv\.bias would'
    with pytest.raises(RuntimeError, match=rf'{told} .* call petl\.unmerge\(\) before loading'):
        model.load_state_dict(state, strict=strict)
    assert torch.equal(model(images), merged)
    head = {name: 0 * tensor for name, tensor in state.items() if name.startswith('head.')}
    model.load_state_dict(head, strict=False)
    assert not model(images).any()
    model.petl.unmerge()
    model.load_state_dict(state, strict=strict)
    assert torch.equal(model(images), expected)
    gleam_mm.detach(model)
    assert not model._load_state_dict_pre_hooks


@torch.no_grad()
@pytest.mark.parametrize('around', [nn.Identity, nn.Sequential])
def test_a_state_dict_of_merged_weights_is_for_models_without_the_method(around, images, tmp_path):
    model = vit()
    for parameter in gleam_mm.attach(model, 'lora', rank=2).parameters():
        nn.init.normal_(parameter)
    expected = model(images)
    whole = around(model) if around is nn.Sequential else model
    model.petl.merge()
    torch.save(whole.state_dict(), tmp_path / 'merged.pth')
    state = torch.load(tmp_path / 'merged.pth', weights_only=True)
    model.petl.unmerge()
    before = model(images)
    told = r'was merged into (0\.)?blocks\.0\.attn\.qkv\.bias when .* twice in this VisionTrans'
    without_metadata = {name: tensor.clone() for name, tensor in state.items()}
    for given in (state, without_metadata):
        for strict in (True, False):
            with pytest.raises(RuntimeError, match=told):
                whole.load_state_dict(given, strict=strict)
    assert torch.equal(model(images), before)
    gleam_mm.detach(model)
    assert not model._state_dict_hooks
    found = whole.load_state_dict(without_metadata, strict=False)
    assert not found.missing_keys and all('petl.' in name for name in found.unexpected_keys)
    torch.testing.assert_close(model(images), expected)


def test_what_else_is_trained_is_saved(images, tmp_path):
    model = vit()
    gleam_mm.attach(model, 'lora', rank=2)
    model.norm.requires_grad_(True)
    train(model, images)
    gleam_mm.save(model, tmp_path / 'a.safetensors', options=OPTIONS)
    again = vit()
    gleam_mm.load(again, tmp_path / 'a.safetensors')
    assert again.norm.weight.requires_grad
    assert torch.equal(again(images), model(images))


def tied(seed=0):
    """A model two blocks of which have parameters in common."""
    model = vit(seed)
    first, second = model.blocks
    second.attn.qkv.bias, second.norm1 = first.attn.qkv.bias, first.norm1
    return model


@pytest.mark.parametrize('method', ['bitfit', 'full', dict(type='LoRA', rank=2)])
def test_a_trained_parameter_that_stands_at_two_places_is_saved(method, images, tmp_path):
    model = tied()
    gleam_mm.attach(model, method)
    model.blocks[0].norm1.requires_grad_(True)
    train(model, images)
    gleam_mm.save(model, tmp_path / 'a.safetensors', options=OPTIONS)
    again = tied()
    gleam_mm.load(again, tmp_path / 'a.safetensors')
    assert again.blocks[0].norm1.weight.requires_grad
    assert torch.equal(again(images), model(images))


def frozen(model):
    return model.requires_grad_(False)


def averaged(model):
    """By timm, whose copy is frozen, and then updated."""
    average = ModelEma(model, decay=0.5)
    average.update(model)
    return average.ema


@pytest.mark.parametrize('freeze', [frozen, averaged, lambda m: frozen(copy.deepcopy(m))])
@pytest.mark.parametrize('method', ['bitfit', dict(type='LoRA', rank=2), 'linear'])
def test_what_was_trained_is_saved_of_a_model_that_is_frozen_by_now(
    freeze, method, images, tmp_path
):
    model = vit()
    gleam_mm.attach(model, method)
    train(model, images)
    told = learning(model)
    kept = freeze(model)
    assert not learning(kept)
    for number in range(2):
        gleam_mm.save(kept, tmp_path / f'{number}.safetensors', options=OPTIONS)
        again = vit()
        gleam_mm.load(again, tmp_path / f'{number}.safetensors')
        assert torch.equal(again(images), kept(images))
        assert learning(again) == told
        kept = frozen(again)


@pytest.mark.parametrize(
    'freeze', [averaged, lambda model: frozen(pickle.loads(pickle.dumps(model)))]
)
def test_what_else_is_trained_is_saved_of_a_frozen_copy(freeze, images, tmp_path):
    model = vit()
    gleam_mm.attach(model, 'lora', rank=2)
    model.norm.requires_grad_(True)
    train(model, images)
    copied = freeze(model)
    gleam_mm.save(copied, tmp_path / 'a.safetensors', options=OPTIONS)
    again = vit()
    gleam_mm.load(again, tmp_path / 'a.safetensors')
    assert torch.equal(again(images), copied(images))


def test_a_method_is_saved_as_a_whole_where_the_head_alone_is_trained_on(images, tmp_path):
    model = vit()
    gleam_mm.attach(model, 'bitfit')
    train(model, images)
    frozen(model).head.requires_grad_(True)
    train(model, images)
    gleam_mm.save(model, tmp_path / 'a.safetensors', options=OPTIONS)
    again = vit()
    gleam_mm.load(again, tmp_path / 'a.safetensors')
    assert torch.equal(again(images), model(images))


def levit(seed=0):
    """A model whose blocks, and whose classifiers, have BatchNorms."""
    torch.manual_seed(seed)
    return timm.create_model('levit_128s', num_classes=3, depth=(1, 1, 1)).eval()


def moving(model):
    """The norms' statistics: name -> values."""
    return {n: b.clone() for n, b in model.named_buffers() if 'running' in n or 'batches' in n}


@pytest.mark.parametrize('method', [dict(type='LoRA', rank=2), 'bitfit', 'linear', 'full'])
def test_statistics_move_with_what_is_trained_and_are_saved(method, tmp_path):
    images = torch.randn(2, 3, 224, 224)
    model = levit()
    before, weights = moving(model), copy.deepcopy(model.state_dict())
    gleam_mm.attach(model, method)
    train(model, images)
    moved = {name for name, values in moving(model).items() if not values.equal(before[name])}
    heads = {name for name in before if name.startswith('head')}
    assert moved == (set(before) if method == 'full' else heads)
    if method == 'bitfit':
        name = 'stem.conv1.bn'  # it learns, on the statistics of the frozen weights
        assert not model.get_parameter(f'{name}.bias').equal(weights[f'{name}.bias'])
        assert model.get_parameter(f'{name}.weight').equal(weights[f'{name}.weight'])

    for kept in (model, frozen(copy.deepcopy(model))):
        path = tmp_path / 'a.safetensors'
        gleam_mm.save(kept, path, options=dict(depth=[1, 1, 1]))
        again = levit()
        gleam_mm.load(again, path)
        with torch.no_grad():
            assert torch.equal(again(images), model(images))


@pytest.mark.parametrize(
    'kept', [lambda model: model, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))]
)
def test_detach_gives_frozen_norms_their_mode_back(kept):
    model = levit()
    norm = model.stem.conv1.bn
    gleam_mm.attach(model, 'lora', rank=2)
    model = kept(model)
    model.train()
    norm = model.stem.conv1.bn
    assert not norm.training and model.head.bn.training
    assert gleam_mm.detach(model).stem.conv1.bn.training
    assert not model.eval().stem.conv1.bn.training and 'train' not in vars(norm)
    model.train()
    model(torch.randn(2, 3, 224, 224))
    assert norm.num_batches_tracked == 1


@pytest.mark.parametrize(
    'convert', [nn.SyncBatchNorm.convert_sync_batchnorm, timm.layers.convert_sync_batchnorm]
)
def test_norms_in_the_place_of_frozen_ones_are_as_still(convert):
    model = levit()
    gleam_mm.attach(model, 'lora', rank=2)
    before, norm = moving(model), model.stem.conv1.bn
    model = convert(model)
    model.train()
    assert isinstance(model.stem.conv1.bn, nn.SyncBatchNorm)
    assert not model.stem.conv1.bn.training and model.head.bn.training
    model(torch.randn(2, 3, 224, 224))
    moved = {name for name, values in moving(model).items() if not values.equal(before[name])}
    assert moved == {name for name in before if name.startswith('head')}
    gleam_mm.detach(model)
    assert model.stem.conv1.bn.training
    model(torch.randn(2, 3, 224, 224))
    assert model.stem.conv1.bn.num_batches_tracked == 1
    assert not any('train' in vars(module) for module in (norm, *model.modules()))


def test_statistics_that_are_estimated_anew_are_those_that_move():
    model, images = levit(), torch.randn(2, 3, 224, 224)
    model.train()(images)  # to statistics that are not those of a new norm
    gleam_mm.attach(model, 'lora', rank=2)
    before = moving(model)
    update_bn([images, images], model)
    moved = {name for name, values in moving(model).items() if not values.equal(before[name])}
    assert moved == {name for name in before if name.startswith('head')}
    norm = gleam_mm.detach(model).stem.conv1.bn
    norm.reset_running_stats()
    assert not norm.running_mean.any()


def replaced(model):
    model.blocks[1].attn.qkv = nn.Linear(32, 96)
    return model


def resized(model):
    model.set_input_size(patch_size=4)
    return model


@pytest.mark.parametrize(
    ('build', 'method', 'change', 'lost'),
    [
        (vit, 'lora', replaced, r'blocks\.1\.attn\.qkv'),
        (vit, 'gleam-t', resized, r'patch_embed\.proj'),
        (vit, 'ssf', resized, r'patch_embed\.proj'),
        (
            levit,
            'lora',
            timm.utils.reparameterize_model,
            r'stages\.0\.blocks\.0\.attn\.qkv\.linear',
        ),
    ],
)
def test_a_method_is_not_lost_with_the_modules_that_it_acts_at(build, method, change, lost):
    model = build()
    gleam_mm.attach(model, method)
    images = torch.randn(2, 3, *model.pretrained_cfg['input_size'][1:])
    images = images if build is levit else images[..., :32, :32]
    expected = model(images)
    assert model(images).equal(expected)
    model = change(model)
    with pytest.raises(RuntimeError, match=rf'are not in the \w+ any more, .*: {lost}'):
        model(images)
    gleam_mm.detach(model)(images)
    gleam_mm.attach(model, method)
    model(images)


def test_a_module_that_is_wrapped_in_its_place_is_still_there(images):
    model = vit()
    gleam_mm.attach(model, 'lora')
    for parameter in model.petl.parameters():
        nn.init.normal_(parameter)
    expected = model(images)
    model.blocks[0] = nn.Sequential(model.blocks[0])
    assert model(images).equal(expected)


def learning(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


def test_load_refuses_and_leaves_the_model_as_it_was(images, tmp_path):
    model = vit()
    gleam_mm.attach(model, 'lora', rank=2)
    path = tmp_path / 'a.safetensors'
    gleam_mm.save(model, path, options=OPTIONS)
    for other, message in (
        (vit(seed=1), r'a\.safetensors: it was trained on weights with the fingerprint'),
        (vit(num_classes=4), r'head\.bias has the shape \(3,\) in the file but \(4,\)'),
        (vit(depth=3), 'the file lacks petl.local.blocks/2'),
        (swin(), 'the file lacks petl.local.layers/0'),
    ):
        other.patch_embed.requires_grad_(False)
        before, learnt = other.state_dict(), learning(other)
        with pytest.raises(CheckpointError, match=message):
            gleam_mm.load(other, path)
        assert not hasattr(other, 'petl')
        assert other.state_dict().keys() == before.keys()
        assert learning(other) == learnt
    other = vit()
    gleam_mm.attach(other, 'lora', rank=2, alpha=3)
    with pytest.raises(CheckpointError, match=r'model\.petl\.alpha is .* but 3 in the model'):
        gleam_mm.load(other, path)
    assert other.petl.attached


def with_weights_of(model, other):
    other.load_state_dict(model.state_dict())
    return other


def clip(name='vit_base_patch16_clip_224'):
    return timm.create_model(name, num_classes=3, **VIT).eval()


def quick_gelu():
    return clip('vit_base_patch16_clip_quickgelu_224')


@pytest.mark.parametrize(
    ('build', 'other', 'options', 'message'),
    [
        (
            lambda: vit(global_pool='avg', fc_norm=False),
            vit,
            {**OPTIONS, 'fc_norm': False},
            "global_pool is 'avg' in the file but 'token' in the model",
        ),
        (
            vit,
            lambda: vit(num_heads=4),
            {k: v for k, v in OPTIONS.items() if k != 'num_heads'},
            'num_heads is 2 in the file but 4 in the model',
        ),
        (
            lambda: vit(act_layer='relu'),
            vit,
            {**OPTIONS, 'act_layer': 'relu'},
            r'blocks\.0\.mlp\.act is GELU\(.*\) here but ReLU\(\) in the model of the file',
        ),
        (
            clip,
            quick_gelu,
            OPTIONS,
            'the file is of vit_base_patch16_clip_224, and the model vit_base_patch16_clip_quickg',
        ),
    ],
)
def test_another_model_of_the_same_weights_is_refused(build, other, options, message, tmp_path):
    model, path = build(), tmp_path / 'a.safetensors'
    other = with_weights_of(model, other())
    same = with_weights_of(model, build())
    images = torch.randn(2, 3, 32, 32)
    assert not torch.allclose(other(images), model(images))
    gleam_mm.attach(model, 'lora', rank=2)
    gleam_mm.save(model, path, options=options)
    with pytest.raises(CheckpointError, match=message):
        gleam_mm.load(other, path)
    assert not hasattr(other, 'petl')
    gleam_mm.load(same, path)
    assert torch.equal(same(images), model(images))


@pytest.mark.parametrize(
    ('name', 'options', 'heads'),
    [
        ('vit_tiny_patch16_224', dict(depth=1, num_heads=6), 6),
        ('deit_tiny_distilled_patch16_224', dict(depth=1, num_heads=1), 1),
        ('beit_base_patch16_224', dict(depth=1, embed_dim=64, num_heads=4), 4),
        (
            'swin_tiny_patch4_window7_224',
            dict(depths=(1, 1), embed_dim=32, num_heads=(1, 1)),
            [1, 1],
        ),
    ],
)
@pytest.mark.filterwarnings('error')
def test_heads_are_told_like_the_size_of_images(name, options, heads, tmp_path):
    model = timm.create_model(name, **options)
    sizes = {key: value for key, value in options.items() if key != 'num_heads'}
    told = timm_models.describe(model, sizes)
    assert told['options']['num_heads'] == heads
    again = timm_models.build(told).eval()
    with_weights_of(model.eval(), again)
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(again(images), model(images))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(act_layer='relu'), r'blocks\.0\.mlp\.act is ReLU\(\) here but GELU'),
        (
            dict(norm_layer=partial(nn.LayerNorm, eps=0.1)),
            r'blocks\.0\.norm1 is .*eps=0\.1.* here but',
        ),
        (dict(block_fn=ResPostBlock), r'blocks\.0 is ResPostBlock\(\) here but Block\(\)'),
    ],
    ids=['activation', 'norm', 'block'],
)
def test_options_without_a_trace_in_the_weights_are_asked_for(change, message):
    with pytest.raises(ValueError, match=message):
        timm_models.describe(vit(**change), OPTIONS)


@pytest.mark.filterwarnings('error')
def test_what_acts_in_training_alone_is_no_other_model():
    model = vit(drop_path_rate=0.1, drop_rate=0.1, proj_drop_rate=0.1)
    assert timm_models.describe(model, OPTIONS) == timm_models.describe(vit(), OPTIONS)


def test_a_model_for_images_of_any_size_tells_pictures_of_the_size_that_is_given(tmp_path):
    weights, path = tmp_path / 'w.safetensors', tmp_path / 'a.safetensors'
    model = vit(dynamic_img_size=True)
    save_file(model.state_dict(), weights)
    gleam_mm.attach(model, 'lora', rank=2)
    size = dict(data_config=dict(input_size=(3, 64, 48), crop_pct=1.0, mean=[0.0], std=[1.0]))
    gleam_mm.save(model, path, options=OPTIONS, **size)
    image = torch.rand(3, 64, 48).mul(255).byte()
    label, score = gleam_mm.Predictor(path, weights, 'cpu')(image)
    expected = model(image[None] / 255).softmax(-1)
    assert label == expected.argmax()
    assert score == pytest.approx(expected.max().item(), abs=1e-6)

    model = vit()
    gleam_mm.attach(model, 'lora', rank=2)
    with pytest.raises(ArgumentError, match=r'input_size=\(3, 64, 48\), but .* images of 32 x 32'):
        gleam_mm.save(model, path, options=OPTIONS, **size)


def test_a_model_whose_heads_differ_by_stage_is_described():
    with torch.device('meta'):
        model = timm.create_model('tiny_vit_5m_224', num_classes=3)
    assert 'num_heads' not in timm_models.describe(model, {})['options']


def test_heads_that_no_option_tells_are_asked_for():
    model = timm.create_model('vit_tiny_patch16_224', depth=2, embed_dim=32, num_heads=2)
    model.blocks[1].attn.num_heads = 4
    with pytest.raises(ValueError, match=r'blocks\.1\.attn has 4 heads here but 2 .*num_heads'):
        timm_models.describe(model, dict(depth=2, embed_dim=32, num_heads=2))


@torch.no_grad()
def test_a_file_of_before_that_tells_no_heads_loads(images, tmp_path):
    model, path = vit(), tmp_path / 'a.safetensors'
    gleam_mm.attach(model, 'lora', rank=2)
    gleam_mm.save(model, path, options=OPTIONS)
    tensors, metadata = read_adapter(path)
    del metadata['model']['options']['num_heads']
    save_adapter(path, tensors, metadata)
    again = vit()
    gleam_mm.load(again, path)
    assert torch.equal(again(images), model(images))


def test_files_of_other_kinds(make_classifier, tmp_path):
    metadata = {'method': {'type': 'LoRA'}, 'backbone': {}, 'head': {}}
    save_adapter(tmp_path / 'a.safetensors', {'x': torch.ones(1)}, metadata)
    with pytest.raises(CheckpointError, match='an adapter of a PETLClassifier'):
        gleam_mm.load(vit(), tmp_path / 'a.safetensors')
    metadata = {'method': {'type': 'LinearClsHead'}, 'model': None}
    save_adapter(tmp_path / 'a.safetensors', {'x': torch.ones(1)}, metadata)
    with pytest.raises(CheckpointError, match='is no PETLMethod'):
        gleam_mm.load(vit(), tmp_path / 'a.safetensors')
    model = vit()
    gleam_mm.attach(model, 'lora')
    gleam_mm.save(model, tmp_path / 'a.safetensors', options=OPTIONS)
    with pytest.raises(CheckpointError, match='of a model of another library'):
        gleam_mm.checkpoint.load_adapter(make_classifier(), tmp_path / 'a.safetensors')
    told = r'this PETLClassifier has a petl of its own, which gleam_mm\.attach has not attached'
    with pytest.raises(CheckpointError, match=rf'a\.safetensors: {told}'):
        gleam_mm.load(make_classifier(), tmp_path / 'a.safetensors')
    for call in (
        lambda model: gleam_mm.attach(model, 'lora'),
        lambda model: gleam_mm.save(model, tmp_path / 'b.safetensors'),
        gleam_mm.detach,
    ):
        with pytest.raises(RuntimeError, match=told):
            call(make_classifier())


def test_save_refuses(tmp_path):
    model = vit()
    with pytest.raises(RuntimeError, match='has no method'):
        gleam_mm.save(model, tmp_path / 'a.safetensors')
    petl = gleam_mm.attach(model, 'lora')
    with pytest.raises(ValueError, match='classes has 2 names, but the model has 3 outputs'):
        gleam_mm.save(model, tmp_path / 'a.safetensors', classes=['a', 'b'])
    for wrong in ('cat', [1, 2, 3]):
        with pytest.raises(ValueError, match=r'^classes: give the name of each class in a list'):
            gleam_mm.save(model, tmp_path / 'a.safetensors', classes=wrong)
    for name in ('a.pth', 'a', 'a.safetensors.bak'):
        with pytest.raises(ValueError, match=rf'{name}: an adapter is a \.safetensors file'):
            gleam_mm.save(model, tmp_path / name)
    assert not list(tmp_path.iterdir())
    with pytest.warns(UserWarning, match='classes has crane more than once'):  # as ImageNet's
        gleam_mm.save(model, tmp_path / 'a.safetensors', classes=['crane', 'kite', 'crane'])
    petl.merge()
    with pytest.raises(RuntimeError, match='unmerge'):
        gleam_mm.save(model, tmp_path / 'a.safetensors')
    petl.unmerge()
    with pytest.warns(UserWarning, match='can only be loaded into one: .*options='):
        gleam_mm.save(model, tmp_path / 'a.safetensors')
    gleam_mm.load(vit(), tmp_path / 'a.safetensors')


@pytest.mark.parametrize(
    ('described', 'message'),
    [
        (dict(library='timm', name='hf-hub:a/b', options={}), 'is no model of this release'),
        (dict(library='os', name='vit_tiny_patch16_224', options={}), 'is no model of this'),
        (dict(library='timm', name='no_such_vit', options={}), 'is no model of this release'),
        (
            dict(library='timm', name='vit_tiny_patch16_224', options={'checkpoint_path': 'x'}),
            'checkpoint_path=.* is no option in a file',
        ),
        (
            dict(library='timm', name='vit_tiny_patch16_224', options={'global_pool': 'a/b.c'}),
            'is no option in a file',
        ),
        (
            dict(library='timm', name='vit_tiny_patch16_224', options={'embed_dim': 'wide'}),
            'timm builds no vit_tiny_patch16_224 of its options',
        ),
    ],
)
def test_a_file_builds_nothing_else(described, message):
    with pytest.raises(CheckpointError, match=message):
        timm_models.build(described)


@torch.no_grad()
def test_a_method_of_few_bits_is_saved_in_few_bits(images, tmp_path):
    model, twin = vit(), vit()
    sizes = {}
    for bits in (None, 1):
        petl = gleam_mm.attach(model, dict(type='LoRA', rank=16, bits=bits))
        for parameter in petl.parameters():
            nn.init.normal_(parameter)
        expected = model(images)
        path = tmp_path / f'{bits}.safetensors'
        gleam_mm.save(model, path, options=OPTIONS)
        sizes[bits] = path.stat().st_size
        if bits:
            gleam_mm.load(twin, path)
            assert torch.equal(twin(images), expected)
        gleam_mm.detach(model)
    numbers = 2 * 16 * (32 + 96)
    assert sizes[None] - sizes[1] > numbers * 3.5

    compress(tmp_path / 'None.safetensors', tmp_path / 'small.safetensors', '8')
    third = vit()
    gleam_mm.load(third, tmp_path / 'small.safetensors')
    assert third(images).isfinite().all()


@torch.no_grad()
def test_methods_of_trained_adapters(images, tmp_path):
    files, outputs = {}, []
    for seed, name in enumerate('ab'):
        model = vit()
        gleam_mm.attach(model, 'lora', rank=2, sites=['fc2'])
        torch.manual_seed(seed)
        for parameter in (*model.petl.parameters(), *model.head.parameters()):
            parameter.add_(0.3 * torch.randn_like(parameter))
        files[name] = tmp_path / f'{name}.safetensors'
        gleam_mm.save(model, files[name], options=OPTIONS)
        outputs.append(model)
    model = vit()
    fusion = gleam_mm.attach(model, dict(type='AdapterFusion', rank=3), adapters=files)
    for part, trained in zip(fusion.parts.values(), outputs, strict=True):
        ours, theirs = part.state_dict(), trained.petl.state_dict()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    for _, parameter in fusion.trainable_parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
    expected = model(images)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert not any('.a.' in name or '.b.' in name for name in trained)
    gleam_mm.save(model, tmp_path / 'fusion.safetensors', options=OPTIONS)
    again = vit()
    gleam_mm.load(again, tmp_path / 'fusion.safetensors')
    assert torch.equal(again(images), expected)
    assert {name for name, p in again.named_parameters() if p.requires_grad} == trained

    other = vit(seed=5)
    with pytest.raises(CheckpointError, match='was trained on a backbone with the fingerprint'):
        gleam_mm.attach(other, dict(type='AdapterFusion'), adapters=files)
    assert not hasattr(other, 'petl') and torch.equal(other(images), vit(seed=5)(images))

    # They can be added as well.
    combine(list(files.values()), tmp_path / 'sum.safetensors', 'product', weights=[0.5, 2.0])
    total = vit()
    gleam_mm.load(total, tmp_path / 'sum.safetensors')
    site, parts = next(iter(total.petl.sites)), [trained.petl for trained in outputs]
    deltas = [p.scale * p.local[site].up @ p.local[site].down for p in (total.petl, *parts)]
    torch.testing.assert_close(deltas[0], 0.5 * deltas[1] + 2 * deltas[2])


@torch.no_grad()
@pytest.mark.parametrize('method', ['Compose', 'Arrow'])
def test_methods_by_name_act_in_their_order(method, images, tmp_path):
    parts = dict(z=dict(type='SSF', sites=['fc2']), a=dict(type='LoRA', rank=2, sites=['fc2']))
    if method == 'Arrow':
        parts, options = {}, dict(top_k=1)
        for seed, name in enumerate('za'):
            part, parts[name] = vit(), tmp_path / f'{name}.safetensors'
            torch.manual_seed(seed)
            for parameter in gleam_mm.attach(part, 'lora', rank=2, sites=['fc2']).parameters():
                parameter.add_(torch.randn_like(parameter))
            gleam_mm.save(part, parts[name], options=OPTIONS)
        given = dict(adapters=parts)
    else:
        given, options = {}, dict(methods=parts)
    model, path = vit(), tmp_path / 'both.safetensors'
    for parameter in gleam_mm.attach(model, dict(type=method, **options), **given).parameters():
        parameter.add_(torch.randn_like(parameter))
    gleam_mm.save(model, path, options=OPTIONS)
    again = vit()
    gleam_mm.load(again, path)
    assert torch.equal(again(images), model(images))
    if method == 'Compose':
        other = vit()
        gleam_mm.attach(other, dict(type=method, methods=dict(sorted(parts.items()))))
        with pytest.raises(CheckpointError, match=r"methods is \['z', 'a'\] in the checkpoint but"):
            gleam_mm.load(other, path)


@torch.no_grad()
@pytest.mark.parametrize(
    'method',
    [
        dict(type='LoRA', rank=2, sites=['*.attn.qkv']),
        dict(type='LoRA', rank=2, alpha=2_000_000),
        dict(type='DyLoRA', rank=2, seed=20261127),
        dict(type='HFPeft', config=dict(peft_type='VERA', r=2, projection_prng_key=20261127)),
        dict(type='GLoRA', rank=2, subnet='subnet.json'),
    ],
    ids=lambda method: method['type'],
)
def test_what_is_attached_is_saved_and_loaded(method, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('subnet.json').write_text('{"A": "vector", "B": "low-rank"}', encoding='utf-8')
    model = vit()
    for parameter in gleam_mm.attach(model, method).parameters():
        parameter.add_(0.01 * torch.randn_like(parameter))
    gleam_mm.save(model, 'a.safetensors', options=OPTIONS)
    Path('subnet.json').unlink()
    again = vit()
    gleam_mm.load(again, 'a.safetensors')
    assert torch.equal(again(images), model(images))


def scales(model):
    """The share of the rate that timm's layer decay gives each trained parameter, by its name."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = param_groups_layer_decay(model, layer_decay=0.5)
    return {names[id(p)]: group['lr_scale'] for group in groups for p in group['params']}


@pytest.mark.parametrize(
    'kept', [lambda model: model, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))]
)
@pytest.mark.parametrize('build', [vit, swin])
@pytest.mark.parametrize(
    'method',
    [
        dict(type='LoRA', rank=2, sites=['q', 'v', 'fc2']),
        ['bitfit', dict(type='LoRA', rank=2)],
        'vpt-deep',
        'gleam-l',
    ],
)
def test_layer_decay_of_timm_gives_a_method_the_rate_of_its_sites(method, build, kept):
    model = build()
    own = scales(model)
    gleam_mm.attach(model, method)
    model = kept(model)
    found = scales(model)
    assert found.keys() == learning(model)
    for name, scale in found.items():
        if not name.startswith('petl.'):
            assert scale == own[name], name
        elif '.shared.' in name:
            assert scale == 1.0, name
        else:
            key = name.rpartition('.local.')[2].partition('.')[0]
            site = key.replace('/', '.').removesuffix('.q').removesuffix('.v')
            assert {scale} == {own[n] for n in own if n.startswith(f'{site}.')}, name
    gleam_mm.detach(model)
    assert 'group_matcher' not in vars(model) and scales(model) == own


def test_what_no_file_may_have_is_not_attached():
    model = vit()
    with pytest.raises(ValueError, match=r"loaded again: method\.sites\.0='a/b' is neither a word"):
        gleam_mm.attach(model, dict(type='LoRA', sites=['a/b']))
    assert not hasattr(model, 'petl')


def test_a_crafted_adapter_is_no_part(tmp_path):
    fingerprint = 64 * '0'
    crafted = dict(
        method=dict(type='TIMMBackbone', model_name='x'), backbone_fingerprint=fingerprint
    )
    save_adapter(tmp_path / 'x.safetensors', {'petl.x': torch.ones(1)}, crafted)
    with pytest.raises(
        CheckpointError, match=r'x\.safetensors: its method is not built: .*PETLMethod'
    ):
        gleam_mm.attach(vit(), dict(type='Compose'), adapters=dict(x=tmp_path / 'x.safetensors'))


@pytest.mark.parametrize('blocks', [(0,), range(1), range(-1, 0)])
def test_options_that_are_no_lists_load_into_the_model_that_they_came_from(
    blocks, images, tmp_path
):
    model = vit()
    gleam_mm.attach(model, dict(type='LoRA', rank=2, sites=('q', 'v'), blocks=blocks))
    train(model, images)
    before = model(images)
    gleam_mm.save(model, tmp_path / 'file.safetensors', options=OPTIONS)
    train(model, images)
    gleam_mm.load(model, tmp_path / 'file.safetensors')
    torch.testing.assert_close(model(images), before)
