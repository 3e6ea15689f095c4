"""Patches of the libraries below every floor, for current torch and numpy: they come first.

The official wheels of the OpenMMLab stack need them. Each is one function that names the upstream
problem and does nothing where the problem is not there, such as on the maintained forks. Most wait
for the module that they patch: they run when that is first imported, whoever imports it, before
anybody else sees it. So :func:`apply`, which sets them up, imports next to nothing. It comes before
the first import of torchvision, and so before that of MMPretrain.
"""

import contextlib
import functools
import gc
import importlib.machinery
import importlib.util
import logging
import pickle
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from importlib import metadata
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import library

_libraries: list[library.Library] = []  # an operator is gone with its library
_patches: dict[str, Callable[[ModuleType], AbstractContextManager]] = {}
"""Modules that are patched, by name -> what runs around their code."""


def apply() -> None:
    """Sets every patch up. Calling it again does nothing."""
    if _finder in sys.meta_path:
        return
    sys.meta_path.insert(0, _finder)
    for name, patch in _patches.items():
        if module := sys.modules.get(name):
            with patch(module):
                pass
    allow_checkpoint_types()
    quiet_harmless_warnings()
    patch_in_workers()


def _around(name: str) -> Callable:
    """Marks what runs around the code of the module of this name, as a context manager does."""

    def mark(patch: Callable[[ModuleType], Iterator[None]]) -> Callable:
        _patches[name] = contextlib.contextmanager(patch)
        return patch

    return mark


def _after(name: str) -> Callable:
    """Marks what runs behind the code of the module of this name."""

    def mark(patch: Callable[[ModuleType], None]) -> Callable:
        @_around(name)
        def around(module: ModuleType) -> Iterator[None]:
            yield
            patch(module)

        return patch

    return mark


class _Finder(MetaPathFinder):
    """Finds the modules to patch as the other finders do, and puts the patch around their code."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _patches:
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        found = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    """Runs a module's code within its patch; then, the module has its own loader again."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = module.__spec__.loader = self.loader
        with _patches[module.__name__](module):
            self.loader.exec_module(module)


_finder = _Finder()


@_around('torchvision')
def define_torchvision_operators(torchvision: ModuleType) -> Iterator[None]:
    """Lets torchvision be imported where its compiled part does not load.

    Its ``_meta_registrations`` describe ``torchvision::nms`` and ``torchvision::qnms`` in any case
    and fail with "operator torchvision::nms does not exist" where the library (``_C``, and
    ``_C_stable`` since 0.29) could not be loaded, such as from a CUDA wheel beside the CPU build of
    torch (pytorch/pytorch#122494). Both operators are declared then, without an implementation:
    nothing here calls them. Where it loads, declaring them as well would end the process.
    """
    if not hasattr(torch.ops.torchvision, 'nms') and not _load_compiled(torchvision):
        declaration = library.Library('torchvision', 'FRAGMENT')
        for name in ('nms', 'qnms'):
            declaration.define(f'{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
        _libraries.append(declaration)
    yield


def _load_compiled(torchvision: ModuleType) -> bool:
    """Loads the compiled part as torchvision itself does next, and says whether that works."""
    for compiled in sorted(Path(torchvision.__file__).parent.glob('_C*')):
        if compiled.name.endswith(tuple(importlib.machinery.EXTENSION_SUFFIXES)):
            try:
                torch.ops.load_library(compiled)
                return True
            except OSError:
                pass
    return False


@_around('mmengine.optim.optimizer.builder')
def import_transformers_late(builder: ModuleType) -> Iterator[None]:
    """Keeps MMEngine from importing transformers, and PEFT with it, for one optimizer's sake.

    It registers their ``Adafactor``, whose import takes seconds. Here, that waits for a config that
    asks for it.
    """
    if 'transformers' in sys.modules or importlib.util.find_spec('transformers') is None:
        yield
        return
    sys.modules['transformers'] = None  # which makes its import an ImportError, caught there
    try:
        yield
    finally:
        del sys.modules['transformers']
    if 'Adafactor' not in builder.OPTIMIZERS:
        builder.OPTIMIZERS.register_module(name='Adafactor', module=_adafactor)


def _adafactor(params: Any, **options: Any) -> torch.optim.Optimizer:
    """The optimizer of transformers."""
    from transformers import Adafactor

    return Adafactor(params, **options)


@_after('mmengine.registry.default_scope')
def release_the_lock_of_managers(default_scope: ModuleType) -> None:
    """Lets other threads go on where one asks for the scope, or the visualizer, and there is none.

    MMEngine raises with its lock held, for which every other thread that builds anything then
    waits for ever. So it does for the scope, without which it can do, where another thread puts an
    empty one back between its look whether there is one and its taking of the last.
    """
    from mmengine.utils import manager

    def last(cls: type) -> Any:
        with manager._lock:
            return next(reversed(cls._instance_dict.values()), None)

    def get_current_instance(cls: type) -> Any:
        if (instance := last(cls)) is None:
            raise RuntimeError(f'there is no {cls.__name__} yet: get_instance(name=...) makes one')
        return instance

    manager.ManagerMixin.get_current_instance = classmethod(get_current_instance)
    default_scope.DefaultScope.get_current_instance = classmethod(last)


@_after('mmengine.utils.package_utils')
def replace_pkg_resources(package_utils: ModuleType) -> None:
    """Lets MMEngine find installed packages without ``pkg_resources``, gone from setuptools 81.

    ``_base_ = 'mmpretrain::...'`` and absolute imports in ``read_base()`` need it. Mended after
    release 0.10.7 by open-mmlab/mmengine#1676.
    """
    if 'pkg_resources' not in package_utils.is_installed.__code__.co_names:
        return
    for name, function in (
        ('is_installed', is_installed),
        ('get_installed_path', get_installed_path),
        ('package2module', package2module),
    ):
        _rebind('mmengine', getattr(package_utils, name), function)


def is_installed(package: str) -> bool:
    """Whether there is a distribution, or a module, of this name."""
    if _is_distribution(package):
        return True
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is not None


def _is_distribution(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def get_installed_path(package: str) -> str:
    """The folder of an installed package, given the name of its module or its distribution.

    Raises:
        RuntimeError: It is a namespace package, which has no folder of its own.
        importlib.metadata.PackageNotFoundError: It is not installed.
    """
    spec = importlib.util.find_spec(package) or importlib.util.find_spec(package2module(package))
    if spec is None:
        raise metadata.PackageNotFoundError(package)
    if spec.origin is None:
        raise RuntimeError(f'{package} is a namespace package, which has no folder of its own')
    return str(Path(spec.origin).parent)


def package2module(package: str) -> str:
    """The name of the module that a distribution installs.

    Raises:
        importlib.metadata.PackageNotFoundError: The distribution is not installed.
        ValueError: It does not say which module it installs.
    """
    modules = (metadata.distribution(package).read_text('top_level.txt') or '').split()
    if not modules:
        raise ValueError(f'can not infer the module name of {package}')
    return modules[0]


def allow_checkpoint_types() -> None:
    """Lets MMEngine's checkpoints pass torch's safe loading (open-mmlab/mmengine#1655).

    Besides tensors, a checkpoint has MMEngine's log: :class:`HistoryBuffer` objects made of numpy
    arrays. They are pickled with references to their own methods, spelled
    ``getattr(HistoryBuffer, 'mean')``, and so is the scheduler ``OneCycleLR``. Allowing the real
    ``getattr`` would let a crafted file reach any function and run it, so the name stands for
    :func:`_checkpoint_getattr` here, which knows these methods and nothing else.
    """
    from mmengine.logging import HistoryBuffer
    from numpy.dtypes import Float32DType, Float64DType, Int64DType

    reconstruct = np.ndarray(0).__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    allowed = [HistoryBuffer, np.ndarray, np.dtype]
    allowed.append((_OneCycle, 'mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler'))
    allowed += [Float32DType, Float64DType, Int64DType]
    for package in ('numpy.core', 'numpy._core'):  # numpy 1 and 2 read each other's checkpoints
        allowed.append((reconstruct, f'{package}.multiarray._reconstruct'))
        allowed.append((scalar, f'{package}.multiarray.scalar'))
    allowed.append((_checkpoint_getattr, 'builtins.getattr'))
    torch.serialization.add_safe_globals(allowed)


class _OneCycle:
    """Stands for the class of the scheduler, whose import takes a second, in a checkpoint."""


def _checkpoint_getattr(owner: Any, name: str) -> Callable:
    """What ``getattr`` means in a checkpoint: methods of two classes, by name."""
    from mmengine.logging import HistoryBuffer

    if owner is HistoryBuffer and name in ('min', 'max', 'mean', 'current'):
        return getattr(HistoryBuffer, name)
    if owner is _OneCycle and name in ('_annealing_cos', '_annealing_linear'):
        from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

        return getattr(OneCycleParamScheduler, name)
    raise pickle.UnpicklingError(f'Unsupported global: GLOBAL getattr({owner!r}, {name!r})')


@_after('mmengine.runner.checkpoint')
def load_safely_only(checkpoint: ModuleType) -> None:
    """Takes MMEngine's two ways around safe loading away.

    Checkpoints at ``https://`` are loaded by ``load_url``, whose default is to run whatever the
    pickle asks for. And ``_safe_torch_load`` of onedl-mmengine (0.10.12) allows the real
    ``getattr``, and loads unsafely whatever safe loading has refused.
    """
    checkpoint.load_url = functools.partial(torch.hub.load_state_dict_from_url, weights_only=True)
    if hasattr(checkpoint, '_safe_torch_load'):
        checkpoint._safe_torch_load = _load_safely


def _load_safely(file: Any, map_location: Any = None, weights_only: bool | None = None) -> Any:
    """Takes the place of onedl-mmengine's ``_safe_torch_load``, with its signature."""
    return torch.load(file, map_location=map_location, weights_only=True)


@_after('mmcv.image.photometric')
def fix_adjust_hue(photometric: ModuleType) -> None:
    """Lets ``ColorJitter`` shift hues downwards on numpy 2 (the same as pytorch/vision#8536).

    ``mmcv.adjust_hue`` converts a negative shift by ``np.uint8(...)``, which wrapped around in
    numpy 1 and is an error in numpy 2.
    """
    original = photometric.adjust_hue
    try:
        original(np.zeros((1, 1, 3), np.uint8), -0.1, backend='cv2')
    except OverflowError:
        _rebind('mmcv', original, _wrap_hue(original))


def _wrap_hue(adjust_hue: Callable) -> Callable:
    @functools.wraps(adjust_hue)
    def wrapped(img: np.ndarray, hue_factor: float, backend: str | None = None) -> np.ndarray:
        return adjust_hue(img, _HueFactor(hue_factor), backend)

    return wrapped


class _HueFactor(float):
    """A share of the colour circle: its multiple, the shift of the uint8 hue, wraps around."""

    def __mul__(self, steps: float) -> int:
        return int(float(self) * steps) % 256


@_after('mmcv.cnn.bricks.drop')
def fix_drop_path(drop: ModuleType) -> None:
    """Lets ``torch.compile`` trace MMPretrain's ViT, whose DropPath rates are numpy numbers.

    ``drop_path`` compares its rate with zero, and the tracer takes a numpy number for data.
    """
    original = drop.DropPath.__init__

    @functools.wraps(original)
    def init(self: torch.nn.Module, drop_prob: float = 0.1) -> None:
        original(self, float(drop_prob))

    drop.DropPath.__init__ = init


@_after('mmpretrain.models.utils.attention')
def fix_window_reverse(attention: ModuleType) -> None:
    """Lets Swin be exported for batches of any size.

    MMPretrain puts windows back into maps by a number of images that it divides out in floating
    point and makes an ``int``, which is the number of the images that a graph is traced with.
    """
    attention.ShiftWindowMSA.window_reverse = staticmethod(window_reverse)


def window_reverse(windows: torch.Tensor, height: int, width: int, size: int) -> torch.Tensor:
    """Takes the place of the function of this name in MMPretrain.

    Args:
        windows: Those of maps, of shape (B W, size, size, C), image by image.
        height: Height of a map.
        width: Width of a map.
        size: Side of a window.

    Returns:
        Maps of shape (B, height, width, C).
    """
    channels = windows.shape[-1]
    grid = windows.view(-1, height // size, width // size, size, size, channels)
    return grid.transpose(2, 3).reshape(-1, height, width, channels)


@_after('mmpretrain.models.utils.embed')
def fix_window_resizing(embed: ModuleType) -> None:
    """Lets the weights of a Swin or BEiT be loaded at another size of windows or images.

    MMPretrain resizes their tables of position biases with ``scipy.interpolate.interp2d``, which
    SciPy 1.14 has removed.
    """
    from scipy import interpolate

    try:
        interpolate.interp2d(range(4), range(4), np.zeros((4, 4)), kind='cubic')
    except (AttributeError, NotImplementedError):
        _rebind('mmpretrain', embed.resize_relative_position_bias_table, resize_position_biases)


def resize_position_biases(
    source: int, target: int, table: torch.Tensor, heads: int
) -> torch.Tensor:
    """Takes the place of MMPretrain's ``resize_relative_position_bias_table``.

    A table has a row for every offset between two tokens, ``source ** 2`` of them. The offsets of
    the old table are put at distances that grow like a geometric series, up to the largest offset
    of the new one, so that small offsets keep their places; between them it is interpolated by
    cubic splines, as ``interp2d`` did.

    Args:
        source: Offsets a side in the table.
        target: Offsets a side in the new one.
        table: Biases of shape (source ** 2, heads).
        heads: The number of heads.

    Returns:
        Biases of shape (target ** 2, heads).
    """
    from scipy.interpolate import RectBivariateSpline

    steps, farthest = source // 2, target // 2
    low, high = 1.01, 1.5  # the ratio of the series, by bisection
    while high - low > 1e-6:
        ratio = (low + high) / 2
        if (1 - ratio**steps) / (1 - ratio) > farthest:
            high = ratio
        else:
            low = ratio
    right = np.cumsum(ratio ** np.arange(steps))
    known = np.concatenate((-right[::-1], [0.0], right))
    wanted = np.arange(-farthest, farthest + 1.0)
    grids = table.float().cpu().numpy().T.reshape(heads, source, source)
    degree = min(3, source - 1)
    resized = [
        RectBivariateSpline(known, known, grid, kx=degree, ky=degree)(wanted, wanted)
        for grid in grids
    ]
    return torch.tensor(np.stack(resized), dtype=torch.float32).flatten(1).T.to(table.device)


@_after('mmengine.dataset.base_dataset')
def serialize_quickly(base_dataset: ModuleType) -> None:
    """Lets MMEngine's datasets pack their lists at once, and say that they have no images.

    Behind the packing MMEngine looks through all objects for garbage. The list needs none of that,
    and all that is imported makes it half a second for each dataset. An empty list ends in "need
    at least one array to concatenate".
    """
    original = base_dataset.BaseDataset._serialize_data

    @functools.wraps(original)
    def serialize(dataset: Any) -> tuple[np.ndarray, np.ndarray]:
        if not dataset.data_list:
            reason = f' (indices={dataset._indices})' if dataset._indices is not None else ''
            raise ValueError(f'{type(dataset).__name__}: the dataset has no images{reason}')
        if gc.get_freeze_count():  # by somebody else, who would find it thawed
            return original(dataset)
        gc.freeze()
        try:
            return original(dataset)
        finally:
            gc.unfreeze()

    base_dataset.BaseDataset._serialize_data = serialize


def quiet_harmless_warnings() -> None:
    """Silences what concerns nobody who uses GLEAM-MM.

    On every start, mmcv-lite misses an operator that nothing here uses, and onedl-mmpretrain a
    client of its makers.
    """
    warnings.filterwarnings('ignore', r'Fail to import ``MultiScaleDeformableAttention``')
    if _is_distribution('onedl-mmpretrain'):
        import mmengine.logging

        _drop(mmengine.logging, 'Could not import OneDL')


@_after('mmengine.fileio.file_client')
def quiet_file_client(file_client: ModuleType) -> None:
    """With every checkpoint, MMEngine deprecates two classes of its own, which it calls itself."""
    _drop(file_client, '"FileClient" will be', '"HardDiskBackend" is the alias')


@_after('mmengine.optim.optimizer.optimizer_wrapper')
def quiet_accumulation(optimizer_wrapper: ModuleType) -> None:
    """On resuming, MMEngine says that accumulated gradients are lost; our checkpoints hold them."""
    _drop(optimizer_wrapper, 'Resumed iteration number is not divisible')


def _drop(module: ModuleType, *beginnings: str) -> None:
    """Makes ``print_log`` of a module drop messages that begin so."""
    original = module.print_log

    @functools.wraps(original)
    def print_log(msg: Any, *args: Any, **kwargs: Any) -> None:
        if not str(msg).startswith(beginnings):
            original(msg, *args, **kwargs)

    module.print_log = print_log


@_after('mmengine.model.base_module')
def quiet_init_report(base_module: ModuleType) -> None:
    """Keeps the report of how each parameter was initialised off the terminal.

    MMEngine's ``BaseModule`` writes it into the log file and, where there is none, prints it: a few
    hundred lines for a ViT.
    """
    from mmengine.logging import MMLogger

    original = base_module.BaseModule._dump_init_info

    @functools.wraps(original)
    def dump(module: torch.nn.Module) -> None:
        handlers = MMLogger.get_current_instance().handlers
        files = [h for h in handlers if isinstance(h, logging.FileHandler)]
        if files and all(file.stream is not None for file in files):  # None: closed, or not begun
            original(module)

    base_module.BaseModule._dump_init_info = dump


def patch_in_workers() -> None:
    """Has these patches in the worker processes of data loaders as well.

    A worker that is spawned, as on macOS, on Windows and with CUDA, is a new process: it imports
    what its dataset needs, MMPretrain before anything of ours, and so without these patches. What
    it is told first is which function to run, by name. That is one of this module, whose import
    applies them.
    """
    global _torch_worker_loop
    from torch.utils.data._utils import worker

    if worker._worker_loop is not _worker_loop:
        _torch_worker_loop = worker._worker_loop
        worker._worker_loop = _worker_loop


_torch_worker_loop: Callable | None = None


def _worker_loop(*args: Any, **kwargs: Any) -> None:
    """Takes the place of torch's loop of a data loader's worker."""
    _torch_worker_loop(*args, **kwargs)


def _rebind(package: str, old: Any, new: Any) -> None:
    """Puts ``new`` wherever a loaded module of a package holds ``old`` under its name."""
    name = old.__name__
    for module_name, module in list(sys.modules.items()):
        if module_name.partition('.')[0] == package and vars(module).get(name) is old:
            setattr(module, name, new)
