"""Speed's benchmarks on models of seconds: rows that can be believed, and tables that say them."""

import dataclasses
import json
from contextlib import nullcontext
from types import SimpleNamespace

import arithmetic
import contenders
import launches
import measuring
import pytest
import scaling
import speed
import step
import tabular
import torch
from contenders import BACKBONES, CONTENDERS
from torch.autograd import DeviceType

NAMES = ['full', 'linear', 'gleam-l', 'lora, every Linear', "HF PEFT's LoRA (timm)"]
SMALL = dict(device='cpu', image_size=32, batch=2, dtype='float32')


@pytest.fixture(scope='module')
def rows():
    setting = step.Setting(backbone='vit-mini', mode=step.TRAINING, **SMALL)
    return {setting: step.measure(setting, NAMES, rounds=3, seconds=0)}


def test_rows_are_ratios_to_the_limit_of_the_same_library(rows):
    (measured,) = rows.values()
    by_name = {row.contender: row for row in measured}
    assert by_name.keys() == {*NAMES, 'limit', 'limit (timm)'}
    for name in ('limit', 'limit (timm)'):
        assert by_name[name].time == by_name[name].memory == 1
    for row in measured:
        assert 0 < row.low <= row.time <= row.high
        assert row.rounds == 3
        assert row.images_per_second is None  # other programs take part in it
    # What is trained, counted by hand: 100 classes on 64 numbers, and A and B of three qkv.
    assert by_name['linear'].parameters == 100 * 65
    assert by_name["HF PEFT's LoRA (timm)"].parameters == 100 * 65 + 2 * 8 * (64 + 3 * 64)
    # Adam keeps two numbers for each that it trains; a probe keeps no activations.
    assert by_name['full'].memory > 1.2
    assert by_name['linear'].memory < 1


def test_a_file_gives_back_what_was_measured(rows, tmp_path):
    step.write(rows, tmp_path / 'step.csv')
    (read,) = step.read(tmp_path / 'step.csv').items()
    (written,) = rows.items()
    assert read[0] == written[0]
    for ours, theirs in zip(read[1], written[1], strict=True):
        assert dataclasses.asdict(ours) == pytest.approx(dataclasses.asdict(theirs), abs=1e-4)
    text = step.markdown(dict([read]))
    assert 'ViT of two blocks at 32, training' in text
    assert text.count('\n|') == 2 + len(written[1])
    assert step.draw(dict([read]), tmp_path / 'step') == [tmp_path / 'step.svg']


def test_what_a_setting_lacks_comes_beside_what_is_there(rows, tmp_path, monkeypatch):
    (there,) = rows.values()
    step.write(rows, tmp_path / 'step.csv')
    (tmp_path / 'machines.json').write_text('{}')
    asked = []

    def measure(setting, names, *_):
        asked.extend(names)
        return [dataclasses.replace(there[0], contender=name, time=9.0) for name in asked]

    monkeypatch.setattr(step, 'measure', measure)
    flags = ['--backbones', 'vit-mini', '--modes', 'training', '--batches', '2']
    flags += ['--image-size', '32']
    only = ['--only', 'linear', 'lora']
    for _ in range(2):  # the second time there is nothing left
        step.main([*flags, *only, '--out', str(tmp_path)])
    assert asked == ['lora']
    (read,) = step.read(tmp_path / 'step.csv').values()
    times = {row.contender: row.time for row in read}
    assert times.pop('lora') == 9
    assert times == pytest.approx({row.contender: row.time for row in there}, abs=1e-4)
    step.main([*flags, '--only', 'fact', '--out', str(tmp_path)])
    what = 'training of vit-mini at batch 2 in float32 on cpu'
    assert [*json.loads((tmp_path / 'machines.json').read_text())] == [what, f'{what}, run 2']


def test_peak_memory_is_that_of_tensors():
    class Doubling(torch.nn.Module):
        def forward(self, x):
            return (x * 2).flatten(1)[:, :100] + 0

    images = torch.zeros(4, 3, 16, 16)
    entry = measuring.Turns(torch.nn.Sequential(torch.nn.Linear(16, 16), Doubling()), images, False)
    parameters = (16 * 16 + 16) * 4
    # The Linear's output and its double at once; it works in nothing of the size of either.
    assert entry.peak() == pytest.approx(parameters + 2 * images.nbytes, abs=2000)


def test_who_is_asked_for_is_compared_with_the_limit_of_its_library_alone():
    setting = step.Setting(backbone='vit-mini', mode=step.TRAINING, **SMALL)
    assert step.contenders_of(setting, ['gleam-l']) == ['limit', 'gleam-l']
    both = step.contenders_of(setting, ['gleam-l', 'gleam-l (timm)'])
    assert sorted(both) == ['gleam-l', 'gleam-l (timm)', 'limit', 'limit (timm)']


@pytest.mark.parametrize('backbone', ['vit-mini', 'swin-mini'])
@pytest.mark.parametrize('mode', [step.TRAINING, step.EVALUATION])
@pytest.mark.slow
def test_every_contender_takes_its_turn(backbone, mode):
    setting = step.Setting(backbone=backbone, mode=mode, **SMALL)
    names = step.contenders_of(setting, None)
    assert {'limit', 'gleam-t', "MMPretrain's LoRAModel, every Linear"} <= {*names}
    assert ("HF PEFT's LoRA (timm)" in names) == (backbone == 'vit-mini')
    measured = step.measure(setting, names, rounds=3, seconds=0)
    assert [row.contender for row in measured] == names
    assert all(row.time > 0 and row.memory > 0 for row in measured)


def test_a_profile_of_a_card_counts_a_kernel_once(monkeypatch):
    """PyTorch tells the time of each as its own and as its operation's."""
    events = [
        SimpleNamespace(key=key, count=1, self_device_time_total=time, device_type=kind)
        for key, time, kind in (
            ('aten::mm', 75, DeviceType.CPU),
            ('sgemm', 75, DeviceType.CUDA),
            ('aten::add', 25, DeviceType.CPU),
            ('elementwise', 25, DeviceType.CUDA),
        )
    ]
    found = SimpleNamespace(key_averages=lambda: events)
    monkeypatch.setattr(measuring, 'profile', lambda **_: nullcontext(found))
    monkeypatch.setattr(torch.cuda, 'synchronize', lambda: None)
    entry = SimpleNamespace(images=SimpleNamespace(is_cuda=True), turn=lambda: None)
    assert measuring.profiled(entry, 5) == [('aten::mm', 0.75, 1), ('aten::add', 0.25, 1)]


@pytest.mark.slow
def test_a_profile_says_where_the_time_goes():
    setting = step.Setting(backbone='vit-mini', mode=step.TRAINING, **SMALL)
    assert '`aten::' in step.profile(setting, ['gleam-l'])


def test_frozen_weights_are_there_once():
    models = {
        name: CONTENDERS[name].build(BACKBONES['vit-mini'], 32)
        for name in ('limit', 'gleam-l', "MMPretrain's LoRAModel")
    }
    contenders.share_frozen(models)
    weights = [
        models['limit'].backbone.layers[0].attn.qkv.weight,
        models['gleam-l'].backbone.layers[0].attn.qkv.weight,
        models["MMPretrain's LoRAModel"].module.backbone.layers[0].attn.qkv.original_layer.weight,
    ]
    assert len({weight.data_ptr() for weight in weights}) == 1


def test_what_grows_is_counted_without_weights(monkeypatch):
    axis = dataclasses.replace(
        scaling.AXES[0], values=(4, 8), size=lambda _: (BACKBONES['vit-mini'], 32)
    )
    found = scaling.points(axis)
    # A and B at 4 + 1 + 1 + 4 blocks of width d that are read, and as many that are written; three
    # products, for outputs and both gradients, of two operations for each number and token.
    tokens, width, blocks, sites = scaling.BATCH * 17, 64, 2, 7 + 9
    least = 2 * 2 * tokens * width * blocks * sites * 4
    assert least < found[0].added_arithmetic
    assert found[0].limit_arithmetic == found[1].limit_arithmetic
    assert found[1].added_arithmetic > 1.9 * found[0].added_arithmetic
    assert 0 < found[0].added_operations == found[1].added_operations
    assert scaling.power(axis, found, scaling.OPERATIONS) == 0


def test_faster_growth_than_there_must_be_is_named():
    axis = scaling.AXES[3]
    slow = [scaling.Point('depth', n, 100, n, 100, n, 100, n) for n in (12, 24)]
    assert 'Nothing grows faster' in scaling.markdown([(axis, slow)])
    fast = [scaling.Point('depth', n, 100, n * n, 100, n, 100, n) for n in (12, 24)]
    assert 'it must grows: arithmetic with depth' in scaling.markdown([(axis, fast)])


def test_the_page_has_what_was_measured_and_says_what_was_not(rows, tmp_path):
    step.write(rows, tmp_path / 'step.csv')
    step.note(tmp_path, 'step on cpu')
    text = speed.page(tmp_path)
    assert 'ViT of two blocks' in text
    assert '`--cuda-graph` steps that are replayed' in text
    assert f'torch {torch.__version__}'.replace('+', r'\+')[:9] in text
    assert 'Cost against size' not in text
    assert '## Arithmetic' not in text and '## Launches' not in text
    counted = (arithmetic.Count('vit-s', 'limit', 'training', 9),)
    tabular.write(tmp_path / 'arithmetic.csv', [counted], arithmetic.Count)
    counted = [(launches.Count('limit', dtype, 9),) for dtype in launches.TYPES]
    tabular.write(tmp_path / 'launches.csv', counted, launches.Count)
    text = speed.page(tmp_path)
    assert '## Arithmetic' in text and '## Launches' in text
