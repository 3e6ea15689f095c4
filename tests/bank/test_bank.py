"""A bank of adapters against gleam_mm.Predictor, which has one of them."""

import gc
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import timm
import torch
from adapters import PREPROCESSOR, build, pictures, write
from PIL import Image
from safetensors.torch import load_file
from torch import nn

import gleam_mm
from gleam_mm.arguments import ArgumentError
from gleam_mm.bank import UnknownTaskError
from gleam_mm.bank import kind as kind_module
from gleam_mm.bank import store as store_module
from gleam_mm.checkpoint import CheckpointError, read_adapter, save_adapter
from gleam_mm.datasets import UnreadableImageError

GLEAM = dict(type='GLEAM', rank=4, alpha=0.5)
NAMES = {
    'pets': ['cat', 'dog'],
    'birds': ['robin', 'wren', 'tit'],
    'cars': None,
    'moles': ['no', 'yes'],
}
RESIZED = [
    dict(type='Resize', scale=[48, 40], backend='pillow', interpolation='bicubic'),
    dict(type='PackInputs'),
]


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """Two tasks of one kind; one with another preprocessing; one with another method."""
    folder = tmp_path_factory.mktemp('adapters')
    other = dict(mean=[100.0, 110, 120], std=[50.0, 60, 70], to_rgb=True)
    made = {
        'pets': build(GLEAM, classes=2, seed=1),
        'birds': build(GLEAM, classes=3, seed=2),
        'cars': build(GLEAM, classes=4, seed=3, preprocessor=other),
        'moles': build(dict(type='VPT', num_prompts=3), classes=2, seed=4),
    }
    return {
        name: write(
            model,
            folder / f'{name}.safetensors',
            NAMES[name],
            **(dict(pipeline=RESIZED) if name == 'cars' else {}),
        )
        for name, model in made.items()
    }


@pytest.fixture
def bank(files):
    return gleam_mm.AdapterBank(adapters=files, device='cpu')


@pytest.mark.parametrize('names', [['weight', 'height'], ['age'], None])
def test_numbers_are_what_a_predictor_tells(bank, files, names, tmp_path):
    mean = [50.0, -2.0][: len(names or 'xy')]
    head = dict(type='RegressionHead', num_classes=len(mean), mean=mean, std=3.0)
    path = write(build(GLEAM, seed=5, head=head), tmp_path / 'numbers.safetensors', names)
    bank.add('sizes', path)
    alone = gleam_mm.Predictor(path, device='cpu')
    images = pictures(4)
    for top_k in (None, 1, 5):
        found, expected = bank(images, 'sizes', top_k=top_k), alone(images, top_k=top_k)
        assert found == expected
        if top_k is None and len(mean) == 1:
            assert [one.label for one in found] == ['age'] * 4
        else:
            assert [[one.label for one in each] for each in found] == [names or [0, 1]] * 4
    mixed = bank(images, ['pets', 'sizes', 'cars', 'sizes'], top_k=2)
    for picture, told in zip(images[1::2], mixed[1::2], strict=True):
        expected = alone(picture, top_k=2)
        assert [number for _, number in told] == pytest.approx([n for _, n in expected], abs=1e-4)


def test_a_head_of_several_tasks_is_refused(bank, tmp_path):
    heads = {task: dict(type='LinearClsHead', num_classes=2) for task in ('kind', 'colour')}
    head = dict(type='MultiTaskHead', task_heads=heads)
    path = write(build(GLEAM, head=head), tmp_path / 'several.safetensors')
    gleam_mm.Predictor(path, device='cpu')
    with pytest.raises(CheckpointError, match=r'several\.safetensors: head\.type=MultiTaskHead: a'):
        bank.add('several', path)
    assert 'several' not in bank.tasks


def test_a_mixed_batch_is_what_predictors_tell(bank, files):
    images = pictures(9)
    order = ['pets', 'cars', 'birds', 'moles', 'pets', 'birds', 'cars', 'pets', 'moles']
    alone = {name: gleam_mm.Predictor(path, device='cpu') for name, path in files.items()}
    told = bank(images, tasks=order, top_k=4)
    for image, task, found in zip(images, order, told, strict=True):
        expected = alone[task](image, top_k=4)
        assert [best.label for best in found] == [best.label for best in expected]
        assert [best.score for best in found] == pytest.approx(
            [best.score for best in expected], rel=1e-5
        )
    assert bank(images, tasks=order) == [best[0] for best in told]


def test_one_task_is_its_predictor_bit_for_bit(bank, files):
    images = pictures(5)
    for task, path in files.items():
        assert bank(images, tasks=task, top_k=2) == gleam_mm.Predictor(path, device='cpu')(
            images, top_k=2
        )


def test_a_folder_of_pictures(bank, files, tmp_path, monkeypatch):
    monkeypatch.setattr('gleam_mm.bank.bank.BATCH', 2)
    for name, array in zip('abc', pictures(3), strict=True):
        Image.fromarray(array).save(tmp_path / f'{name}.png')
    found = bank(tmp_path, tasks='pets', top_k=2)
    assert [*found] == [str(tmp_path / f'{name}.png') for name in 'abc']
    alone = gleam_mm.Predictor(files['pets'], device='cpu')(tmp_path, top_k=2)
    for best, expected in zip(found.values(), alone.values(), strict=True):  # in other batches
        assert [one.label for one in best] == [one.label for one in expected]
        assert [one.score for one in best] == pytest.approx([one.score for one in expected])


def test_arguments_that_are_none(bank):
    with pytest.raises(ArgumentError, match='top_k=0: choose a whole number of at least 1'):
        bank(pictures(1), tasks='pets', top_k=0)
    with pytest.raises(ArgumentError, match=r'adapters=\[.*\]: give each file a name'):
        gleam_mm.AdapterBank(adapters=['pets.safetensors'])


def test_one_pass_for_one_kind(bank):
    passes = []
    for name in ('pets', 'moles'):
        backbone = bank._tasks[name].kind.model.backbone
        backbone.register_forward_hook(lambda *_, name=name: passes.append(name))
    bank(pictures(4), tasks=['pets', 'birds', 'birds', 'pets'])
    assert passes == ['pets']
    bank(pictures(3), tasks=['pets', 'moles', 'birds'])
    assert sorted(passes[1:]) == ['moles', 'pets']


def test_numbers_that_would_not_fit_run_in_several_passes(bank, monkeypatch):
    images, order = pictures(5), ['pets', 'birds', 'birds', 'pets', 'pets']
    expected = bank(images, tasks=order, top_k=2)
    monkeypatch.setattr(kind_module, 'GATHERED_BYTES', 2 * bank._tasks['pets'].kind.row_bytes)
    for found, known in zip(bank(images, tasks=order, top_k=2), expected, strict=True):
        assert [best.label for best in found] == [best.label for best in known]
        assert found[0].score == pytest.approx(known[0].score, rel=1e-5)


def test_numbers_of_which_two_would_not_fit_run_by_adapter(bank, files, monkeypatch):
    images, order = pictures(5), ['pets', 'birds', 'birds', 'pets', 'pets']

    def scores(bank):
        return bank.scores([bank.prepare(*pair) for pair in zip(images, order, strict=True)])

    expected = scores(bank)
    monkeypatch.setattr(kind_module, 'GATHERED_BYTES', 1)
    grouped = gleam_mm.AdapterBank(adapters=files, device='cpu')
    assert bank.describe('pets')['batched'] and not grouped.describe('pets')['batched']
    for one, other in zip(scores(grouped), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_the_backbone_is_in_memory_once(bank):
    tasks = bank._tasks
    first, other = (tasks[name].kind.model.backbone for name in ('pets', 'moles'))
    assert first is not other
    weights = [[p.data_ptr() for p in b.parameters()] for b in (first, other)]
    assert weights[0] == weights[1]
    assert bank.memory.backbone == 4 * sum(p.numel() for p in first.parameters())


def test_active_add_and_remove(bank, files):
    (image,) = pictures(1)
    with pytest.raises(UnknownTaskError, match='no task is active'):
        bank(image)
    assert bank.active('birds') == bank.active() == 'birds'
    assert bank(image) == bank(image, tasks='birds')
    bank.remove('birds')
    assert bank.active() is None and bank.tasks == ('pets', 'cars', 'moles')
    with pytest.raises(UnknownTaskError, match="no task 'birds'; there are: pets, cars, moles"):
        bank(image, tasks=['birds'])
    with pytest.raises(UnknownTaskError):
        bank.remove('birds')
    with pytest.raises(ValueError, match="'pets' is there already"):
        bank.add('pets', files['birds'])
    with pytest.raises(ValueError, match=r"task '../x': a name has"):
        bank.add('../x', files['birds'])
    with pytest.raises(ValueError, match='2 tasks for 1 images'):
        bank([image], tasks=['pets', 'pets'])
    with pytest.raises(UnreadableImageError, match=r'nowhere\.png does not exist'):
        bank(['nowhere.png'], tasks='pets')


def test_another_fingerprint_is_refused_with_both(bank, tmp_path):
    model = build(GLEAM)
    with torch.no_grad():
        model.backbone.patch_embed.projection.weight.add_(1)
    path = write(model, tmp_path / 'other.safetensors')
    theirs = model.backbone_fingerprint()
    ours = bank._tasks['pets'].kind.model.backbone_fingerprint()
    with pytest.raises(CheckpointError) as refused:
        bank.add('other', path)
    assert str(path) in str(refused.value)
    assert theirs in str(refused.value) and ours in str(refused.value) and theirs != ours
    assert 'other' not in bank.tasks


def test_adapters_that_do_not_belong(bank, files, tmp_path):
    tensors, metadata = read_adapter(files['pets'])

    head, path = {**metadata['head'], 'in_channels': 16}, tmp_path / 'x.safetensors'
    for more, changes, message in (
        ({}, dict(backbone={**metadata['backbone'], 'final_norm': False}), 'backbone.final_norm'),
        ({'petl.more': torch.zeros(1)}, {}, 'petl.more'),
        ({}, dict(method=dict(type='Conv2d')), r'method.type='),
        ({}, dict(model=dict(library='timm', name='vit', options={})), 'a bank of its own'),
        ({'head.fc.bias': torch.zeros(9)}, {}, 'fc.bias'),
        ({}, dict(head=head), r'head.in_channels=16: the model gives 32'),
        ({}, dict(pipeline=[dict(type='RandomCrop')]), 'RandomCrop'),
    ):
        save_adapter(path, {**tensors, **more}, {**metadata, **changes})
        with pytest.raises(CheckpointError, match=message) as refused:
            bank.add('x', path)
        assert str(refused.value).startswith(f'{path}: ') and '\n' not in str(refused.value)


def test_a_refused_first_adapter_leaves_no_backbone(files, tmp_path):
    tensors, metadata = read_adapter(files['pets'])
    path = tmp_path / 'x.safetensors'
    save_adapter(path, tensors, {**metadata, 'backbone_fingerprint': '0' * 64})
    bank = gleam_mm.AdapterBank(device='cpu')
    with pytest.raises(CheckpointError, match=r'0{64}'):
        bank.add('x', path)
    assert bank.memory.backbone == 0
    bank.add('pets', files['pets'])
    assert bank.memory.backbone > 0


def test_least_recently_used_adapters_leave_and_come_back(files, tmp_path):
    for name, path in files.items():
        shutil.copy(path, tmp_path / f'{name}.safetensors')
    files = {name: tmp_path / f'{name}.safetensors' for name in ('pets', 'birds')}
    images, order = pictures(4), ['pets', 'birds', 'birds', 'pets']
    everything = gleam_mm.AdapterBank(adapters=files, device='cpu')
    full = everything.memory
    one = everything._tasks['pets'].kind.row_bytes + full.heads
    bank = gleam_mm.AdapterBank(adapters=files, device='cpu', device_bytes=one)
    assert bank.memory.tasks == 1 and bank.memory.adapters == full.adapters // 2
    assert bank(images, tasks=order, top_k=2) == everything(images, tasks=order, top_k=2)
    for task in ('pets', 'birds', 'pets'):
        assert bank(images, tasks=task) == everything(images, tasks=task)
        assert bank.memory.tasks == 1
    shutil.copy(files['pets'], files['birds'])  # while it is in no memory
    with pytest.raises(CheckpointError, match=r"not the adapter any more that task 'birds'"):
        bank(images, tasks='birds')


def test_adapters_move_to_the_cpu_beside_another_device(bank):
    """No other device may be here: the CPU stands for it."""
    tasks, read = list(bank._tasks.values()), []
    store = store_module.Store(
        lambda task: read.append(task) or bank._load(task), torch.device('cpu'), device_bytes=0
    )
    store._aside = store_module._Shelf(None)
    for task in tasks:
        store.put(task, bank._load(task))
    assert not store.held()
    store.fetch(tasks)
    assert not read
    store.drop(tasks[0])
    store.fetch(tasks)
    assert not read  # whoever asks for it still has its key
    store._aside.take(tasks[1])
    store.fetch(tasks)
    assert read == tasks[1:2]


def test_threads_that_add_and_remove_disturb_nobody(bank, files):
    """Eight ask while two change: every answer is that of the task that was asked for."""
    images = pictures(6)
    expected = {task: bank(images, tasks=task, top_k=2) for task in files}
    wrong, stop = [], threading.Event()

    def ask(seed):
        generator = torch.Generator().manual_seed(seed)
        while not stop.is_set():
            picked = torch.randint(6, (4,), generator=generator).tolist()
            order = [list(files)[i] for i in torch.randint(4, (4,), generator=generator)]
            told = bank([images[i] for i in picked], tasks=order, top_k=2)
            for i, task, found in zip(picked, order, told, strict=True):
                known = expected[task][i]
                same = [best.label for best in found] == [best.label for best in known]
                if not same or abs(found[0].score - known[0].score) > 1e-5:
                    wrong.append((task, i, found))

    def change(name):
        for _ in range(10):
            bank.add(name, files['birds'])
            bank.remove(name)

    with ThreadPoolExecutor(10) as pool:
        askers = [pool.submit(ask, seed) for seed in range(8)]
        changers = [pool.submit(change, f'new{i}') for i in range(2)]
        try:
            for changer in changers:
                changer.result()
        finally:
            stop.set()
        for asker in askers:
            asker.result()
    assert not wrong
    assert bank.tasks == tuple(files)


@pytest.mark.parametrize('device_bytes', [None, 0])
def test_a_request_keeps_the_task_that_it_began_with(files, tmp_path, device_bytes):
    """Even if its adapter was in no memory, and its file goes with it."""
    path = shutil.copy(files['birds'], tmp_path / 'birds.safetensors')
    adapters = {**files, 'birds': path}
    bank = gleam_mm.AdapterBank(adapters=adapters, device='cpu', device_bytes=device_bytes)
    (image,) = pictures(1)
    expected = bank(image, tasks='birds')
    waiting = bank.prepare(image, 'birds')
    bank.remove('birds')
    path.unlink()
    assert bank.predict([waiting]) == [expected]
    assert len(bank._store.held()) == (3 if device_bytes is None else 0)  # it is not taken up again
    del waiting
    gc.collect()
    assert not bank._store._leaving


def test_a_backbone_by_name():
    from gleam_mm.config import recipes

    config = recipes.backbone_preset('vit-mini')
    bank = gleam_mm.AdapterBank('vit-mini', device='cpu')
    tensors = load_file(gleam_mm.checkpoint.resolve_path(config['init_cfg']['checkpoint']))
    assert bank.memory.backbone == sum(t.numel() * 4 for t in tensors.values())
    with pytest.raises(recipes.RecipeError, match=r'backbone=vit-mimi: .*did you mean .vit-mini'):
        gleam_mm.AdapterBank('vit-mimi')


@pytest.fixture
def timm_files(tmp_path):
    """Two tasks of gleam_mm.save, one of which trained a norm as well; and one of its own."""
    options = dict(patch_size=8, embed_dim=32, depth=2, num_heads=2, img_size=32)
    torch.manual_seed(0)
    weights = timm.create_model('vit_tiny_patch16_224', **options).state_dict()
    torch.save(weights, tmp_path / 'weights.pth')
    made = {}
    for seed, name in enumerate(('pets', 'birds', 'cars')):
        classes = NAMES[name] or ['a', 'b']
        model = timm.create_model('vit_tiny_patch16_224', **options, num_classes=len(classes))
        own = {key: value for key, value in weights.items() if not key.startswith('head.')}
        model.load_state_dict(own, strict=False)
        gleam_mm.attach(model, GLEAM if name != 'cars' else dict(type='SSF'))
        if name == 'birds':
            model.norm.requires_grad_(True)
        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.1 * torch.randn_like(parameter))
        del options['img_size']
        gleam_mm.save(model, tmp_path / f'{name}.safetensors', classes=classes, options=options)
        options['img_size'] = 32
        made[name] = tmp_path / f'{name}.safetensors'
    return made


def test_files_of_before_that_tell_no_heads_go_with_others(timm_files, files, tmp_path):
    tensors, metadata = read_adapter(timm_files['pets'])
    del metadata['model']['options']['num_heads']
    save_adapter(timm_files['pets'], tensors, metadata)
    adapters = {name: timm_files[name] for name in ('birds', 'pets')}
    weights = tmp_path / 'weights.pth'
    bank = gleam_mm.AdapterBank(adapters=adapters, weights=weights, device='cpu')
    assert bank.tasks == ('birds', 'pets') and bank(pictures(1), ['pets'])


def test_models_of_timm(timm_files, files, tmp_path):
    weights = tmp_path / 'weights.pth'
    bank = gleam_mm.AdapterBank(adapters=timm_files, weights=weights, device='cpu')
    alone = {n: gleam_mm.Predictor(p, weights, 'cpu') for n, p in timm_files.items()}
    images, order = pictures(5), ['pets', 'birds', 'cars', 'birds', 'pets']
    for image, task, found in zip(images, order, bank(images, order, top_k=2), strict=True):
        expected = alone[task](image, top_k=2)
        assert [best.label for best in found] == [best.label for best in expected]
        assert found[0].score == pytest.approx(expected[0].score, rel=1e-5)
    with pytest.raises(CheckpointError, match='does not belong to a model of timm'):
        bank.add('x', files['pets'])
    tensors, metadata = read_adapter(timm_files['pets'])
    path = tmp_path / 'x.safetensors'
    save_adapter(path, tensors, {**metadata, 'backbone_fingerprint': '0' * 64})
    with pytest.raises(CheckpointError, match=r'0{64}, but those of this model have'):
        bank.add('x', path)


def test_other_heads_than_a_linear(tmp_path):
    """A head of MMPretrain with a layer of its own."""
    model = build(GLEAM)
    from gleam_mm.registry import MODELS, own_scope

    config = dict(type='StackedLinearClsHead', num_classes=3, in_channels=32, mid_channels=[16])
    with own_scope():
        model.head = MODELS.build(config).eval()
    nn.init.normal_(model.head.layers[0].fc.weight)
    model.description['head'] = config
    path = write(model, tmp_path / 'a.safetensors')
    bank = gleam_mm.AdapterBank(adapters={'a': path, 'b': path}, device='cpu')
    images = pictures(2)
    prepared = [bank.prepare(image, task) for image, task in zip(images, 'ab', strict=True)]
    inputs = torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image in images]).float()
    mean, std = (torch.tensor(PREPROCESSOR[key])[:, None, None] for key in ('mean', 'std'))
    with torch.no_grad():
        expected = model.head(model.extract_feat((inputs - mean) / std)).softmax(-1)
    torch.testing.assert_close(torch.stack(bank.scores(prepared)), expected)
