"""SparseAdapter: SNIP's choice by hand, zeros that stay zero, and a training that resumes."""

import pytest
import torch
from mmengine.runner import Runner
from mmpretrain.structures import DataSample

from gleam_mm.engine.sparse_hook import largest, snip
from gleam_mm.registry import HOOKS, MODELS


def test_scores_are_products_of_values_and_gradients():
    a, b = torch.nn.Parameter(torch.tensor([2.0, -1.0])), torch.nn.Parameter(torch.tensor([3.0]))
    batches = [lambda: (a * torch.tensor([1.0, 4.0])).sum() + b.sum(), lambda: (-a).sum() + b.sum()]
    scores = snip([a, b], batches, 0.01)
    assert torch.equal(scores[0], torch.tensor([4.0, 5.0]))
    assert torch.equal(scores[1], torch.tensor([6.0]))
    assert [mask.tolist() for mask in largest(scores, 2 / 3)] == [[0, 1], [1]]


def test_the_choice_does_not_depend_on_what_stands_for_zeros():
    torch.manual_seed(0)
    x, frozen = torch.randn(16, 6), torch.randn(6, 5)
    down = torch.nn.Parameter(torch.randn(6, 3))
    up = torch.nn.Parameter(torch.zeros(3, 5))
    loss = [lambda: ((x @ frozen + torch.relu(x @ down) @ up) ** 2).mean()]
    chosen = [largest(snip([down, up], loss, spread), 0.5) for spread in (1e-4, 1e-5)]
    assert all(torch.equal(*pair) for pair in zip(*chosen, strict=True))
    assert all(0 < mask.float().mean() < 1 for mask in chosen[0])
    assert not up.any()


class Images(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        image = torch.randint(0, 256, (3, 32, 32), generator=generator, dtype=torch.uint8)
        return dict(inputs=image, data_samples=DataSample().set_gt_label(index % 4))


@pytest.fixture
def train(tmp_path, make_classifier):
    def run(epochs, petl='Adapter', resume=False, **options):
        model = make_classifier(petl, num_classes=4, **options)
        model.data_preprocessor = MODELS.build(
            dict(type='ClsDataPreprocessor', mean=[127.0] * 3, std=[127.0] * 3)
        )
        runner = Runner(
            model,
            str(tmp_path / 'run'),
            train_dataloader=dict(
                dataset=Images(),
                batch_size=4,
                num_workers=0,
                collate_fn=dict(type='default_collate'),
                sampler=dict(type='DefaultSampler', shuffle=True),
            ),
            train_cfg=dict(by_epoch=True, max_epochs=epochs),
            optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-2, weight_decay=0.1)),
            custom_hooks=[dict(type='SparseAdapterHook', sparsity=0.75)],
            default_hooks=dict(logger=None),
            resume=resume,
            randomness=dict(seed=3),
            default_scope='gleam_mm',
            experiment_name=f'sparse-{torch.rand(1).item()}',
        )
        runner.train()
        return model

    return run


def test_what_is_pruned_stays_zero_also_when_a_training_resumes(train, tmp_path):
    model = train(1, bottleneck=4)
    parameters = dict(model.petl.named_parameters())
    masks = torch.load(tmp_path / 'run/epoch_1.pth', weights_only=False)['sparse_masks']
    assert masks.keys() == parameters.keys()
    total = sum(parameter.numel() for parameter in parameters.values())
    assert sum(int(mask.sum()) for mask in masks.values()) == round(0.25 * total)
    resumed = train(2, resume=True, bottleneck=4)
    for name, parameter in resumed.petl.named_parameters():
        for trained in (parameters[name], parameter):
            assert not trained[masks[name] == 0].any()
    moved = zip(resumed.petl.parameters(), parameters.values(), strict=True)
    assert any(not torch.equal(*pair) for pair in moved)


def test_scores_are_taken_without_what_training_draws(train):
    # DyLoRA counts its training steps, and draws a rank of each.
    assert train(1, 'DyLoRA', rank=2).petl.step == 2  # two batches of four of eight images


def test_what_an_evaluation_does_not_use_stays_whole(train, tmp_path):
    train(1, 'GLEAM', rank=2, num_experts=2, top_k=1, balance=0.01)
    masks = torch.load(tmp_path / 'run/epoch_1.pth', weights_only=False)['sparse_masks']
    (noise,) = (mask for name, mask in masks.items() if name.endswith('.noise'))
    assert noise.all()
    share = sum(int(m.sum()) for m in masks.values()) / sum(m.numel() for m in masks.values())
    assert share == pytest.approx(0.25, abs=1e-3)


def test_what_is_trained_in_the_backbone_is_left_alone(train, tmp_path):
    methods = [dict(type='LoRA', rank=2), dict(type='BitFit')]
    method = train(1, 'Compose', methods=methods).petl
    masks = torch.load(tmp_path / 'run/epoch_1.pth', weights_only=False)['sparse_masks']
    trained = dict(method.trainable_parameters())
    adopted = {name for name in trained if name.startswith('backbone.')}
    assert adopted and masks.keys() == trained.keys() - adopted


@pytest.mark.parametrize('method', ['LinearProbe', 'BitFit'])
def test_without_parameters_of_its_own(method, train):
    with pytest.raises(ValueError, match='the model has no PETL method with parameters of its own'):
        train(1, method)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match='sparsity=1: choose a number above 0 and below 1'):
        HOOKS.build(dict(type='SparseAdapterHook', sparsity=1))
