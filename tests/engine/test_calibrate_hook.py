"""A method looks at training data once, before the first step, and spends nobody's randomness."""

import pytest
import torch
from mmengine.runner import Runner
from mmpretrain.structures import DataSample

from gleam_mm.petl import LoRA
from gleam_mm.registry import MODELS


@pytest.fixture
def looking():
    """A LoRA whose biases are the mean squared gradients of its sites' frozen weights."""

    @MODELS.register_module()
    class Looking(LoRA):
        def build(self, sites):
            super().build(sites)
            self.register_buffer('sensitivity', torch.zeros(len(sites)))
            self.looks = 0

        def calibrate(self, batches):
            self.looks += 1
            weights = [site.module.weight.requires_grad_() for site in self.sites.values()]
            for loss_of_batch in batches:
                gradients = torch.autograd.grad(loss_of_batch(), weights)
                self.sensitivity += torch.stack([g.square().mean() for g in gradients])
            for weight in weights:
                weight.requires_grad_(False)

    yield
    MODELS.module_dict.pop('Looking')


@pytest.fixture
def make_runner(tmp_path, make_classifier):
    """Runners over eight random images; the method is the argument."""

    def make(petl, name='run', method=None, **options):
        class Images(torch.utils.data.Dataset):
            def __len__(self):
                return 8

            def __getitem__(self, index):
                generator = torch.Generator().manual_seed(index)
                image = torch.randint(0, 256, (3, 32, 32), generator=generator, dtype=torch.uint8)
                return dict(inputs=image, data_samples=DataSample().set_gt_label(index % 4))

        loader = dict(
            dataset=Images(),
            batch_size=4,
            num_workers=0,
            collate_fn=dict(type='default_collate'),
            sampler=dict(type='DefaultSampler', shuffle=True),
        )
        model = make_classifier(petl, num_classes=4, **(method or dict(rank=2)))
        model.data_preprocessor = MODELS.build(
            dict(type='ClsDataPreprocessor', mean=[127.0] * 3, std=[127.0] * 3)
        )
        return Runner(
            model,
            work_dir=str(tmp_path / name),
            train_dataloader=loader,
            train_cfg=dict(by_epoch=True, max_epochs=1),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            custom_hooks=[dict(type='CalibrateHook', num_batches=2), dict(type='EpochSeedHook')],
            default_hooks=dict(logger=None, checkpoint=dict(type='CheckpointHook')),
            experiment_name=name,
            default_scope='gleam_mm',
            randomness=dict(seed=3),
            **options,
        )

    return make


def trained(runner):
    runner.train()
    return {name: p.detach().clone() for name, p in runner.model.petl.named_parameters()}


def test_a_method_looks_once_and_training_goes_on_as_without(looking, make_runner, tmp_path):
    plain = trained(make_runner('LoRA', 'plain'))
    runner = make_runner('Looking', 'looking')
    assert all(torch.equal(tensor, plain[name]) for name, tensor in trained(runner).items())
    method = runner.model.petl
    assert method.looks == 1
    assert (method.sensitivity > 0).all()

    checkpoint = tmp_path / 'looking' / 'epoch_1.pth'
    again = make_runner('Looking', 'again', resume=True, load_from=str(checkpoint))
    again.train()
    assert again.model.petl.looks == 0
    assert torch.equal(again.model.petl.sensitivity, method.sensitivity)


def columns(runner):
    return [rows.columns.clone() for rows in runner.model.petl.local.values()]


def test_chosen_weights_are_chosen_once(make_runner, tmp_path):
    method = dict(select='gradient', k=2)
    runner = make_runner('SparseTuning', 'first', method)
    before = columns(runner)
    runner.train()
    chosen = columns(runner)
    assert not all(map(torch.equal, chosen, before))
    assert all(rows.values.abs().max() > 0 for rows in runner.model.petl.local.values())

    checkpoint = tmp_path / 'first' / 'epoch_1.pth'
    for name, resume in (('resumed', True), ('loaded', False)):
        again = make_runner('SparseTuning', name, method, resume=resume, load_from=str(checkpoint))
        again.train()
        assert all(map(torch.equal, columns(again), chosen))
