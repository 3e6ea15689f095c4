"""Steps that are recorded as CUDA graphs. Most of it needs a GPU; what refuses does not."""

import copy
import gc
import re

import pytest
import torch
from mmengine.config import Config
from torch import nn
from torch.nn import functional as F

import gleam_mm  # first: torchvision may have to be mended before others import it

# isort: split

import timm

from gleam_mm.engine.checks import check_cuda_graph
from gleam_mm.models import use_cuda_graphs
from gleam_mm.registry import MODELS

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason='a CUDA graph needs a GPU')
BATCH, CLASSES = 4, 3


def classifier(method='GLEAM', **options):
    """A classifier in training mode, whose drop path and noise draw at every step."""
    torch.manual_seed(0)
    arch = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)
    backbone = dict(
        type='VisionTransformer', arch=arch, img_size=32, patch_size=8, drop_path_rate=0.2
    )
    head = dict(type='LinearClsHead', in_channels=32, num_classes=CLASSES)
    petl = dict(type=method, **options)
    model = MODELS.build(dict(type='PETLClassifier', backbone=backbone, head=head, petl=petl))
    return model.train()


def steps(model, batches, dtype=None, accumulated=1):
    """Losses and parameters of a short training."""
    device = batches[0].device
    model = model.to(device)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)
    torch.manual_seed(5)
    losses = []
    for number, images in enumerate(batches, start=1):
        labels = torch.arange(len(images), device=device) % CLASSES
        with torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None):
            loss = F.cross_entropy(model.head(model.extract_feat(images)).float(), labels)
        scaler.scale(loss).backward()
        losses.append(loss.detach())
        if number % accumulated == 0:
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
    return [*losses, *(p.detach() for p in trained)]


def batches(number, device='cuda', size=BATCH):
    torch.manual_seed(1)
    return [torch.randn(size, 3, 32, 32).to(device) for _ in range(number)]


def recorded(model):
    use_cuda_graphs(model.backbone, model.petl)
    return model


@needs_gpu
@pytest.mark.parametrize('dtype', [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize('accumulated', [1, 2])
def test_a_training_is_the_same(dtype, accumulated):
    given = batches(6)
    expected = steps(classifier().cuda(), given, dtype, accumulated)
    found = steps(recorded(classifier().cuda()), given, dtype, accumulated)
    close = dict(rtol=1e-3, atol=1e-4) if dtype is None else dict(rtol=0.05, atol=0.01)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, **close)
    assert len(set(map(float, found[:6]))) == 6


@needs_gpu
def test_batches_of_three_sizes_evaluations_and_other_parameters():
    given = [*batches(2), *batches(2, size=3), *batches(2, size=2), *batches(1)]

    def run(model):
        found = steps(model, given)
        model.eval()
        with torch.no_grad():
            found.append(model.head(model.extract_feat(given[0])))
        next(model.petl.parameters()).requires_grad_(False)
        return [*found, *steps(model.train(), given)]

    for ours, theirs in zip(run(recorded(classifier())), run(classifier()), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@needs_gpu
def test_a_graph_that_python_lets_go_of_does_not_break_a_recording():
    """Letting go of a graph is what CUDA forbids while another is recorded."""
    steps(recorded(classifier().cuda()), batches(1))  # whose parts know each other: it is garbage
    model, found = recorded(classifier().cuda()), []

    def collect(*_):
        if torch.cuda.is_current_stream_capturing():
            found.append(gc.collect())

    model.backbone.layers[0].register_forward_hook(collect)
    gc.disable()
    try:
        steps(model, batches(1))
    finally:
        gc.enable()
    assert found


@needs_gpu
def test_a_pass_whose_memory_was_written_over_has_no_gradients():
    model, (first, second) = recorded(classifier().cuda()), batches(2)
    loss = model.extract_feat(first)[0].sum()
    model.extract_feat(second)
    with pytest.raises(RuntimeError, match='written over, by another pass'):
        loss.backward()
    loss = model.extract_feat(first)[0].sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match='once after each forward pass'):
        loss.backward()


@needs_gpu
@pytest.mark.parametrize(
    ('method', 'options', 'error', 'message'),
    [
        ('MoSA', {}, RuntimeError, 'decided in Python anew at every step'),
        ('GLEAM', dict(balance=0.01), ValueError, 'GLEAM has a loss of its own'),
    ],
)
def test_what_cannot_be_recorded_is_refused(method, options, error, message):
    model = recorded(classifier(method, **options).cuda())
    with pytest.raises(error, match=message):
        model.extract_feat(batches(1)[0])


@needs_gpu
def test_a_copy_and_what_is_removed_compute_by_themselves():
    model, images = classifier().cuda(), batches(1)[0]
    graphs = use_cuda_graphs(model.backbone, model.petl)
    model.extract_feat(images)
    assert copy.deepcopy(model).backbone._compiled_call_impl is None
    graphs.remove()
    torch.manual_seed(0)
    plain = model.extract_feat(images)[0]
    torch.manual_seed(0)
    torch.testing.assert_close(model.extract_feat(images)[0], plain)


@needs_gpu
def test_a_model_of_timm_in_a_loop_of_ones_own():
    def run(graphed):
        torch.manual_seed(0)
        model = timm.create_model('vit_tiny_patch16_224', img_size=32, depth=2, num_classes=CLASSES)
        gleam_mm.attach(model, 'gleam-l')
        model.cuda().train()
        if graphed:
            use_cuda_graphs(model)
        torch.manual_seed(2)
        for images in batches(3):
            model.zero_grad()
            model(images).square().sum().backward()
        return [p.grad for p in model.parameters() if p.requires_grad]

    for ours, theirs in zip(run(True), run(False), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_without_a_gpu_nothing_is_recorded():
    given = batches(3, device='cpu')
    expected = steps(classifier(), given)
    for ours, theirs in zip(steps(recorded(classifier()), given), expected, strict=True):
        assert torch.equal(ours, theirs)


_MODEL = dict(petl=dict(type='GLEAM'))


@pytest.mark.parametrize(
    ('config', 'gpu', 'message'),
    [
        (dict(cuda_graph=True, model=_MODEL), False, 'cuda_graph=True: torch sees no GPU here'),
        (dict(cuda_graph='yes', model=_MODEL), True, "cuda_graph='yes': choose True or False"),
        (dict(cuda_graph=True, model={}), True, 'model.petl is missing'),
        (dict(cuda_graph=True, model=_MODEL, compile=True), True, 'does not go with compile'),
        (
            dict(cuda_graph=True, model=_MODEL, custom_hooks=[dict(cache_features=True)]),
            True,
            'does not go with cache_features',
        ),
        (
            dict(cuda_graph=True, model=_MODEL, launcher='pytorch'),
            True,
            'does not go with several processes, with which it has not been tried',
        ),
    ],
)
def test_what_does_not_go_together_is_refused(config, gpu, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    with pytest.raises(ValueError, match=re.escape(message)):
        check_cuda_graph(Config({'launcher': 'none', **config}))


def test_blocks_that_are_checkpointed_are_refused():
    model = classifier()
    model.backbone.layers[0].with_cp = True
    with pytest.raises(ValueError, match=r'gradient checkpointing \(with_cp'):
        recorded(model)
    model = timm.create_model('vit_tiny_patch16_224', img_size=32, depth=2)
    model.set_grad_checkpointing()
    with pytest.raises(ValueError, match='set_grad_checkpointing'):
        use_cuda_graphs(model)


def test_trainings_without_it_are_not_asked():
    check_cuda_graph(Config(dict(model={})))
    check_cuda_graph(Config(dict(cuda_graph=False, model=_MODEL)))


def test_only_passes_with_gradients_over_images_are_recorded(monkeypatch):
    """Which is decided before anything is asked of a GPU."""
    model = nn.Linear(3, 3)
    graphs = use_cuda_graphs(model)
    monkeypatch.setattr(graphs, '_recorded', lambda images: pytest.fail('it was recorded'))
    x = torch.randn(2, 3)
    assert model(x).shape == (2, 3)
    assert model(input=x).shape == (2, 3)
    with torch.no_grad():
        model(x)
    model.eval()(x)
    graphs.remove()
    assert model(x).shape == (2, 3)
