import _ctypes
import gc
import logging
import shutil
import subprocess
import sys
import weakref
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata, util
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import SimpleNamespace

import cv2
import mmcv
import mmengine
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.logging import HistoryBuffer, MMLogger, print_log
from mmengine.model import BaseModule
from mmengine.optim import OneCycleLR
from mmengine.registry import DefaultScope
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.visualization import Visualizer
from mmpretrain.models.utils import embed
from torch import nn
from torch.utils.data import DataLoader

from gleam_mm import compat
from gleam_mm.registry import TRANSFORMS


class Crafted:
    """Pickles as a call, as a crafted checkpoint does."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def save_and_load(value, path):
    torch.save(value, path)
    return torch.load(path, weights_only=True)


def test_torchvision_imports_whatever_state_its_compiled_part_is_in():
    code = (
        'import gleam_mm, torch, torchvision; from torchvision.transforms import functional as F;'
        'print(tuple(F.resize(torch.rand(3, 8, 8), 4).shape))'
    )
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip().endswith('(3, 4, 4)')


def test_operators_are_declared_only_where_no_library_of_torchvision_loads(tmp_path):
    package = tmp_path / 'torchvision'
    package.mkdir()
    (package / '__init__.py').touch()
    found = package / '_C_stable.so'
    code = (
        f'import sys; sys.path.insert(0, {str(tmp_path)!r})\n'
        'from gleam_mm import compat\n'
        'import torch, torchvision\n'
        'print(len(compat._libraries), hasattr(torch.ops.torchvision, "nms"))\n'
    )
    for make, expected in (
        (lambda: shutil.copy(_ctypes.__file__, found), '0 False'),  # loads, whatever it has
        (lambda: found.write_bytes(b'of another build'), '1 True'),
    ):
        make()
        run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
        assert (run.stdout.strip(), run.stderr) == (expected, '')


def test_import_is_quiet():
    run = subprocess.run([sys.executable, '-c', 'import gleam_mm'], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, '', '')


def test_applying_again_changes_nothing():
    def patched():
        return (
            list(sys.meta_path),
            list(compat._libraries),
            set(torch.serialization.get_safe_globals()),
            mmengine.utils.is_installed,
            mmengine_checkpoint.load_url,
            mmcv.adjust_hue,
            mmengine.fileio.file_client.print_log,
            BaseModule._dump_init_info,
        )

    before = patched()
    compat.apply()
    assert before == patched()


def test_every_module_to_patch_is_there():
    missing = [name for name in compat._patches if util.find_spec(name) is None]
    assert not missing


LIBRARIES = """
import mmcv.cnn.bricks.drop
import mmengine.dataset
import mmengine.model
import mmengine.runner
import sys
"""
PATCHED = """
from mmcv.image import photometric
from mmengine.optim.optimizer import optimizer_wrapper
from mmpretrain.models.utils import ShiftWindowMSA
functions = [
    mmengine.dataset.BaseDataset._serialize_data,
    mmengine.fileio.file_client.print_log,
    mmengine.model.BaseModule._dump_init_info,
    mmcv.cnn.bricks.drop.DropPath.__init__,
    optimizer_wrapper.print_log,
    ShiftWindowMSA.window_reverse,
]
assert {function.__code__.co_filename for function in functions} == {gleam_mm.compat.__file__}
assert mmcv.adjust_hue is photometric.adjust_hue
mmcv.adjust_hue(mmcv.image.imrescale(photometric.np.zeros((1, 1, 3), 'uint8'), 2), -0.1)
assert mmengine.runner.checkpoint.load_url.keywords == dict(weights_only=True)
assert 'pkg_resources' not in mmengine.utils.is_installed.__code__.co_names
"""


@pytest.mark.parametrize(
    'program',
    ['import gleam_mm' + LIBRARIES + PATCHED, LIBRARIES + 'import gleam_mm' + PATCHED],
    ids=['before', 'after'],
)
def test_libraries_are_patched_whether_they_are_imported_before_or_after(program):
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_module_that_is_patched_keeps_its_own_loader():
    spec = mmengine.dataset.base_dataset.__spec__
    assert isinstance(spec.loader, SourceFileLoader)
    assert mmengine.dataset.base_dataset.__loader__ is spec.loader


def test_a_log_file_that_is_closed_gets_no_report(tmp_path):
    closed = logging.FileHandler(tmp_path / 'run.log')
    closed.close()
    logger = MMLogger.get_current_instance()
    logger.addHandler(closed)
    try:
        BaseModule().init_weights()
    finally:
        logger.removeHandler(closed)
    assert not (tmp_path / 'run.log').read_text()


# Safe loading


def test_history_buffer_passes_safe_loading(tmp_path):
    buffer = HistoryBuffer()
    for value, count in ((1.0, 1), (2.0, 1), (6.0, 2)):
        buffer.update(value, count)
    loaded = save_and_load({'loss': buffer}, tmp_path / 'log.pth')['loss']
    assert loaded.data[0].tolist() == [1.0, 2.0, 6.0]
    for statistic in ('mean', 'min', 'max', 'current'):
        assert loaded.statistics(statistic) == buffer.statistics(statistic)


@pytest.mark.parametrize('value', [np.float64(0.5), np.float32(0.5), np.int64(7)])
def test_numpy_numbers_pass_safe_loading(value, tmp_path):
    loaded = save_and_load({'best_score': value}, tmp_path / 'score.pth')['best_score']
    assert loaded == value and loaded.dtype == value.dtype


@pytest.mark.parametrize('anneal_strategy', ['cos', 'linear'])
def test_state_of_one_cycle_lr_passes_safe_loading(anneal_strategy, tmp_path):
    def scheduler():
        optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
        return OneCycleLR(optimizer, eta_max=1, total_steps=9, anneal_strategy=anneal_strategy)

    state = save_and_load(scheduler().state_dict(), tmp_path / 'scheduler.pth')
    resumed = scheduler()
    resumed.load_state_dict(state)
    assert resumed.anneal_func(0.0, 1.0, 0.25) == scheduler().anneal_func(0.0, 1.0, 0.25)


@pytest.mark.parametrize('owner, name', [(dict, 'fromkeys'), (HistoryBuffer, '__init__')])
def test_getattr_in_a_checkpoint_reaches_nothing_but_the_known_methods(owner, name, tmp_path):
    with pytest.raises(Exception, match='Unsupported'):
        save_and_load(Crafted(getattr, owner, name), tmp_path / 'crafted.pth')


def test_getattr_does_not_lead_from_a_known_method_to_others(tmp_path):
    # The way to run anything, if getattr were the real one: method.__globals__['...'].
    chain = Crafted(getattr, Crafted(getattr, HistoryBuffer, 'mean'), '__globals__')
    with pytest.raises(Exception, match='Unsupported global'):
        save_and_load(chain, tmp_path / 'crafted.pth')


def test_unsafe_pickles_at_a_url_are_refused(tmp_path, monkeypatch):
    marker = tmp_path / 'ran'
    crafted = tmp_path / 'cache' / 'crafted.pth'
    crafted.parent.mkdir()
    torch.save({'state_dict': Crafted(Path.touch, marker)}, crafted)
    load = mmengine_checkpoint.load_from_http
    with pytest.raises(Exception, match='Weights only'):
        load('https://example.com/crafted.pth', model_dir=str(crafted.parent), map_location='cpu')
    assert not marker.exists()


def test_safe_loading_of_the_forks_has_no_way_around(tmp_path):
    marker = tmp_path / 'ran'
    torch.save({'state_dict': Crafted(Path.touch, marker)}, tmp_path / 'crafted.pth')
    load = getattr(mmengine_checkpoint, '_safe_torch_load', compat._load_safely)
    for weights_only in (None, True, False):
        with pytest.raises(Exception, match='Weights only'):
            load(tmp_path / 'crafted.pth', map_location='cpu', weights_only=weights_only)
    assert not marker.exists()


# pkg_resources


def test_installed_packages_are_found_by_module_and_by_distribution():
    assert mmengine.utils.is_installed('mmpretrain')
    assert mmengine.utils.is_installed('safetensors')
    assert not mmengine.utils.is_installed('no-such-package')
    folder = str(Path(util.find_spec('mmpretrain').origin).parent)
    assert mmengine.utils.get_installed_path('mmpretrain') == folder
    with pytest.raises(metadata.PackageNotFoundError):
        mmengine.utils.get_installed_path('no-such-package')


def test_replacement_finds_the_module_behind_a_distribution():
    folder = str(Path(util.find_spec('sklearn').origin).parent)
    assert compat.is_installed('scikit-learn')
    assert compat.get_installed_path('sklearn') == folder


def test_configs_inherit_across_libraries():
    text = "_base_ = 'mmpretrain::resnet/resnet18_8xb32_in1k.py'"
    config = Config.fromstring(text, '.py')
    assert config.model.backbone.depth == 18


# ColorJitter


@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
def test_hue_shifts_both_ways(backend):
    red, green, blue = ([0, 0, 255], [0, 255, 0], [255, 0, 0])  # mmcv's images are BGR
    image = np.array([[red, green, blue]], np.uint8)
    up = mmcv.adjust_hue(image, 1 / 3, backend=backend).astype(int)
    down = mmcv.adjust_hue(image, -1 / 3, backend=backend).astype(int)
    assert np.abs(up - [[green, blue, red]]).max() <= 12
    assert np.abs(down - [[blue, red, green]]).max() <= 12


def test_hue_out_of_range_is_still_refused():
    with pytest.raises(ValueError, match='hue_factor'):
        mmcv.adjust_hue(np.zeros((1, 1, 3), np.uint8), -0.6)


def test_hue_of_old_numpy_is_reproduced():
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    hue, saturation, value = cv2.split(cv2.cvtColor(image, cv2.COLOR_BGR2HSV_FULL))
    shifted = ((hue.astype(int) + int(-0.3 * 255)) % 256).astype(np.uint8)
    expected = cv2.cvtColor(cv2.merge([shifted, saturation, value]), cv2.COLOR_HSV2BGR_FULL)
    np.testing.assert_array_equal(mmcv.adjust_hue(image, -0.3, backend='cv2'), expected)


# Windows of another size


@pytest.mark.parametrize('source, target', [(7, 13), (5, 9), (13, 7), (7, 7)])
def test_position_biases_are_resized_exactly_where_they_are_cubic(source, target):
    """Old offsets are put at 1, 1 + q, 1 + q + q^2, ..., whose last is the largest new one."""
    steps, farthest = source // 2, target // 2
    roots = np.roots([*[1] * (steps - 1), 1 - farthest])  # 1 + q + ... = farthest
    (q,) = [max(1.01, min(root.real, 1.5)) for root in roots if root.imag == 0 and root.real > 0]
    right = np.cumsum(q ** np.arange(steps))
    known = np.concatenate((-right[::-1], [0], right))

    def biases(x, y):
        return torch.tensor(x**3 - 2 * x * y + y**2, dtype=torch.float32)

    table = biases(*np.meshgrid(known, known, indexing='ij')).flatten()[:, None].repeat(1, 2)
    resized = embed.resize_relative_position_bias_table(source, target, table, 2)
    new = np.arange(-farthest, farthest + 1)
    inside = np.abs(new) <= right[-1]  # beyond, a spline is constant
    expected = biases(*np.meshgrid(new[inside], new[inside], indexing='ij'))
    for head in range(2):
        ours = resized[:, head].view(target, target)[inside][:, inside]
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-3)


# What is printed


def test_windows_are_put_back_where_they_were():
    from mmpretrain.models.utils import ShiftWindowMSA

    maps = torch.randn(2, 8, 12, 3)
    windows = ShiftWindowMSA.window_partition(maps, 4)
    assert torch.equal(compat.window_reverse(windows, 8, 12, 4), maps)


class Emptied(OrderedDict):
    """Scopes that another thread takes away after a look at them."""

    def __bool__(self):
        return True


def require_unlocked():
    with ThreadPoolExecutor(1) as pool:
        pool.submit(MMLogger.get_current_instance).result(5)  # takes MMEngine's lock


def test_asking_for_a_scope_that_goes_away_holds_up_nobody(monkeypatch):
    monkeypatch.setattr(DefaultScope, '_instance_dict', Emptied())
    assert DefaultScope.get_current_instance() is None
    require_unlocked()


def test_asking_for_what_is_not_there_holds_up_nobody():
    with pytest.raises(RuntimeError, match='there is no Visualizer yet'):
        Visualizer.get_current_instance()
    require_unlocked()
    ours = Visualizer.get_instance('ours')
    assert Visualizer.get_current_instance() is ours


@pytest.fixture
def collections():
    """Has garbage collected on request alone, and everything looked through."""
    gc.collect()
    gc.disable()
    gc.unfreeze()
    yield
    gc.freeze()
    gc.enable()


class Ring:
    """Holds itself, so that only a collection frees it."""

    def __init__(self):
        self.itself = self


class Lists(BaseDataset):
    def load_data_list(self):
        return [{'number': number} for number in range(5)]


@pytest.mark.parametrize('frozen', [False, True])
def test_a_dataset_is_packed_without_a_look_at_all_objects(frozen, collections):
    if frozen:  # by the program, which chose what is looked at
        gc.freeze()
    before = gc.get_freeze_count()
    garbage = weakref.ref(Ring())
    dataset = Lists()
    assert (garbage() is None) == frozen
    assert gc.get_freeze_count() == pytest.approx(before, rel=0.01)
    assert [dataset[index]['number'] for index in range(5)] == list(range(5))
    gc.collect()
    assert garbage() is None


def test_file_client_says_nothing_but_others_do(capsys):
    MMLogger.get_instance('mmengine')
    mmengine.fileio.FileClient.infer_client(None, 'x')
    mmengine.fileio.file_client.print_log('something else', logger=None)
    print_log('and more', logger=None)
    out = capsys.readouterr()
    assert 'deprecated' not in out.out + out.err
    assert 'something else' in out.out and 'and more' in out.out


@pytest.fixture
def current_logger(monkeypatch):
    logger = logging.Logger('test')
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger.addHandler(handler)
    monkeypatch.setattr(MMLogger, 'get_current_instance', classmethod(lambda cls: logger))
    return SimpleNamespace(logger=logger, lines=lines)


class Initialised(BaseModule):
    def __init__(self):
        super().__init__(init_cfg=dict(type='Constant', layer='Linear', val=1.0))
        self.linear = nn.Linear(1, 1)


def test_report_of_initialisation_stays_off_the_terminal(current_logger):
    Initialised().init_weights()
    assert not any('linear.weight' in line for line in current_logger.lines)


def test_report_of_initialisation_reaches_the_log_file(current_logger, tmp_path):
    file_handler = logging.FileHandler(tmp_path / 'log')
    current_logger.logger.addHandler(file_handler)
    Initialised().init_weights()
    file_handler.close()
    assert 'linear.weight' in (tmp_path / 'log').read_text()


@pytest.mark.slow
@pytest.mark.parametrize('method', ['spawn', 'forkserver'])
def test_workers_that_are_not_forked_are_patched(method):
    images = [{'img': np.full((2, 2, 3), 90, np.uint8)} for _ in range(8)]
    jitter = TRANSFORMS.build(dict(type='ColorJitter', hue=0.5))  # overflows without a patch
    loader = DataLoader(
        images, batch_size=None, collate_fn=jitter, num_workers=1, multiprocessing_context=method
    )
    assert len([image['img'] for image in loader]) == 8
