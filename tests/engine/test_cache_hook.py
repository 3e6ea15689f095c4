"""Images and features on the device: the same training as without, or a refusal in words."""

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmpretrain.structures import DataSample
from runs import loader_of
from together import together

from gleam_mm.arguments import ArgumentError
from gleam_mm.checkpoint import read_adapter
from gleam_mm.engine import DeviceCacheHook, init_dist
from gleam_mm.errors import UserError
from gleam_mm.models.teacher import Teacher
from gleam_mm.registry import HOOKS, MODELS


class Pictures(BaseDataset):
    """Ten pictures of two classes, counted as they are read."""

    METAINFO = {'classes': ('dark', 'bright')}
    read = 0

    def load_data_list(self):
        generator = torch.Generator().manual_seed(1)
        return [
            dict(
                pixels=torch.randint(i % 2 * 50, 200, (3, 32, 32), generator=generator).byte(),
                gt_label=i % 2,
            )
            for i in range(10)
        ]


def pack(data):
    Pictures.read += 1
    return dict(inputs=data['pixels'], data_samples=DataSample().set_gt_label(data['gt_label']))


def jitter(data):
    data['pixels'] = (data['pixels'] + torch.randint(0, 5, (3, 1, 1))).byte()
    return data


STILL = Pictures(pipeline=[pack], serialize_data=False)
LAST = dict(rank=2, blocks=[-1])


@pytest.fixture
def train(make_runner, make_classifier):
    """Trains with and without a cache, and gives weights and curves; further runs are numbered."""
    number = iter(range(100))

    def run(
        petl='LinearProbe',
        method=None,
        cache=None,
        dataset=STILL,
        change=None,
        hooks=(),
        **options,
    ):
        model = make_classifier(petl, num_classes=2, **(method or {}))
        mean, std = [127.0] * 3, [60.0] * 3
        model.data_preprocessor = MODELS.build(
            dict(type='ClsDataPreprocessor', mean=mean, std=std, **options.pop('data', {}))
        )
        if change is not None:
            change(model)
        loader = loader_of(dataset)
        validation = dict(loader, sampler=dict(type='DefaultSampler', shuffle=False), batch_size=5)
        runner = make_runner(
            model=model,
            work_dir=options.pop('work_dir', None) or make_runner.folder / str(next(number)),
            loader=loader,
            val_dataloader=validation,
            val_cfg={},
            val_evaluator=dict(type='Accuracy'),
            script=(1.0,),
            hooks=[*hooks, *([DeviceCacheHook(**cache)] if cache else [])],
            **options,
        )
        Pictures.read = 0
        runner.train()
        scalars = runner.message_hub.log_scalars
        curves = {
            name: scalars[name].data[0].tolist()
            for name in ('train/loss', 'val/accuracy/top1')
            if name in scalars
        }
        weights = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
        return weights, curves, runner

    return run


@pytest.fixture
def make_runner(make_runner, tmp_path):
    make_runner.folder = tmp_path
    return make_runner


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_linear_probe_reads_its_images_once(train):
    weights, curves, _ = train()
    assert Pictures.read == 3 * 20  # three epochs, and as many validations
    cached, cached_curves, runner = train(cache=dict(cache_features=True))
    assert Pictures.read == 20 + 1 + 2  # and what was tried
    close(cached, weights)
    assert cached_curves['val/accuracy/top1'] == curves['val/accuracy/top1']
    assert type(runner.train_dataloader.dataset) is Pictures  # all as it was
    assert type(runner.model.data_preprocessor).__name__ == 'ClsDataPreprocessor'


@pytest.mark.parametrize(
    ('petl', 'method'),
    [
        ('GLEAM', LAST),
        ('LoRA', LAST),
        ('BitFit', dict(blocks=[-1])),
        ('VPT', dict(num_prompts=2, blocks=[-1])),
        ('DTL', dict(rank=2, start=1)),
    ],
)
def test_methods_in_the_last_block_learn_the_same(train, petl, method):
    weights, curves, _ = train(petl, method)
    cached, cached_curves, _ = train(petl, method, cache=dict(cache_features=True))
    close(cached, weights)
    torch.testing.assert_close(
        cached_curves['train/loss'], curves['train/loss'], rtol=1e-5, atol=1e-6
    )


def test_blocks_before_the_first_are_not_computed(train):
    calls = []

    def count(model):
        first, last = model.backbone.layers
        first.attn.register_forward_hook(lambda *args: calls.append('first'))
        last.attn.register_forward_hook(lambda *args: calls.append('last'))

    train('LoRA', LAST, cache=dict(cache_features=True), change=count)
    assert calls.count('last') >= 9 + 6  # iterations, and batches of validations
    assert calls.count('first') <= 5 + 5  # batches of either loader, and what was tried


def test_a_teacher_sees_the_same_pixels(train, make_classifier):
    seen = []

    class Told(Teacher):
        def __init__(self):
            self.model = make_classifier('LinearProbe', num_classes=2, seed=5)
            self.temperature = self.weight = self.label_weight = 1.0

        def logits(self, images, preprocessor):
            seen.append((images * preprocessor.std + preprocessor.mean).mean().item())
            return super().logits(images, preprocessor)

    def teach(model):
        model.teacher = Told()
        model.teacher.model.data_preprocessor = MODELS.build(
            dict(type='ClsDataPreprocessor', mean=[10.0] * 3, std=[100.0] * 3)
        )

    weights, _, _ = train('LoRA', LAST, change=teach)
    plain, seen[:] = [*seen], []
    cached, _, _ = train('LoRA', LAST, change=teach, cache=dict(cache_images=True))
    assert seen == plain and min(seen) > 50
    assert all(torch.equal(cached[name], weights[name]) for name in weights)


def test_images_on_the_device_are_the_same_bit_for_bit(train):
    weights, curves, _ = train('GLEAM')
    cached, cached_curves, _ = train('GLEAM', cache=dict(cache_images=True))
    assert Pictures.read == 20 + 1
    assert all(torch.equal(cached[name], weights[name]) for name in weights)
    assert cached_curves == curves


@pytest.mark.parametrize('cache', ['cache_images', 'cache_features'])
def test_two_processes_with_a_cache_learn_as_one_without(
    cache, make_runner, make_classifier, tmp_path
):
    def learn(processes, hooks=()):
        model = make_classifier('LoRA', num_classes=2, **LAST)
        model.data_preprocessor = MODELS.build(
            dict(type='ClsDataPreprocessor', mean=[127.0] * 3, std=[60.0] * 3)
        )
        config = Config(dict(launcher='none' if processes == 1 else 'pytorch'))
        init_dist(config)
        make_runner(
            model,
            tmp_path / str(processes),
            loader=dict(
                batch_size=10 // processes,
                dataset=STILL,
                sampler=dict(type='DefaultSampler', shuffle=True),
                collate_fn=dict(type='default_collate'),
            ),
            optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1)),
            param_scheduler=None,
            checkpoint=dict(save_best=None),
            hooks=hooks,
            launcher=config.launcher,
            cfg=dict(model_wrapper_cfg=config.get('model_wrapper_cfg')),
        ).train()
        return tmp_path / str(processes) / 'adapter.safetensors'

    expected, _ = read_adapter(learn(1))
    together(lambda rank: learn(2, [DeviceCacheHook(**{cache: True})]), tmp_path / 'store')
    found, _ = read_adapter(tmp_path / '2' / 'adapter.safetensors')
    close(found, expected)


def test_a_resumed_training_computes_them_again(train, tmp_path):
    cache = dict(cache_features=True)
    whole, _, _ = train('LoRA', LAST, cache)
    folder = tmp_path / 'stopped'
    train('LoRA', LAST, cache, work_dir=folder, checkpoint=dict(max_keep_ckpts=-1))
    resumed, _, runner = train(
        'LoRA', LAST, cache, work_dir=folder, resume=True, load_from=str(folder / 'epoch_1.pth')
    )
    assert runner.epoch == 3
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


@pytest.mark.parametrize('cache', ['cache_images', 'cache_features'])
@pytest.mark.parametrize(
    ('options', 'word'),
    [
        (dict(dataset=Pictures(pipeline=[jitter, pack], serialize_data=False)), 'at random'),
        (
            dict(data=dict(batch_augments=dict(augments=[dict(type='Mixup', alpha=0.8)]))),
            'augments',
        ),
    ],
)
def test_what_is_random_is_refused(train, cache, options, word):
    options = {**options, 'data': {**options.get('data', {}), 'num_classes': 2}}
    with pytest.raises(UserError, match=f'{cache}.*{word}'):
        train(cache={cache: True}, **options)


@pytest.mark.parametrize('cache', ['cache_images', 'cache_features'])
def test_pictures_of_validations_are_refused(train, cache):
    with pytest.raises(UserError, match=f'{cache}.*visualization draws'):
        train(cache={cache: True}, hooks=[dict(type='VisualizationHook', enable=True)])


def drop(model):
    model.backbone.layers[0].ffn.dropout_layer.drop_prob = 0.1


def count_batches(model):
    norm = torch.nn.BatchNorm1d(32)
    model.backbone.layers[0].ffn.register_forward_hook(
        lambda module, args, output: norm(output.transpose(1, 2)).transpose(1, 2)
    )
    model.backbone.layers[0].ffn.add_module('norm', norm.requires_grad_(False))


@pytest.mark.parametrize(
    ('options', 'word'),
    [
        (dict(change=drop), 'drop_path_rate=0'),
        (dict(change=count_batches), 'norm.num_batches_tracked|norm.running_mean'),
        (dict(petl='LoRA', method=dict(rank=2)), r'blocks=\[-2,-1\]'),
        (dict(petl='FullTuning'), 'first block'),
        (dict(cfg=Config(dict(compile=True))), 'compile'),
        (dict(petl='VPT', method=dict(num_prompts=2)), 'first block'),
    ],
)
def test_a_prefix_that_changes_is_refused(train, options, word):
    with pytest.raises(UserError, match=f'cache_features: .*({word})'):
        train(cache=dict(cache_features=True), **options)


def test_memory_is_bounded(train):
    told = r'10 images of 2\.1\d+ KiB take 21\.\d+ KiB, and 1\.049 KiB are allowed \(most_gib'
    with pytest.raises(UserError, match=told):
        train('LoRA', LAST, cache=dict(cache_features=True, most_gib=1e-6))


@pytest.mark.parametrize(
    ('argument', 'value', 'words'),
    [
        ('cache_features', 'no', 'True or False'),
        ('cache_images', 1, 'True or False'),
        ('most_gib', 'lots', 'a number above 0'),
        ('most_gib', 0, 'a number above 0'),
    ],
)
def test_what_is_no_switch_turns_nothing_on(argument, value, words):
    with pytest.raises(ArgumentError, match=f'DeviceCacheHook: {argument}=.*choose {words}'):
        HOOKS.build({'type': 'DeviceCacheHook', argument: value})


def test_one_of_both():
    with pytest.raises(ValueError, match='one of'):
        DeviceCacheHook(cache_images=True, cache_features=True)
