"""Patches of the libraries below every floor, for current torch and numpy: they come first.

The official wheels of the OpenMMLab stack need them. Each is one function that names the upstream
problem and does nothing where the problem is not there, such as on the maintained forks.
:func:`apply` runs them all. It comes before the first import of torchvision, and so before that of
MMPretrain.
"""

import functools
import importlib.machinery
import importlib.util
import logging
import pickle
import sys
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import library

_applied = False
_libraries: list[library.Library] = []  # an operator is gone with its library


def apply() -> None:
    """Applies every patch that is needed. Calling it again does nothing."""
    global _applied
    if _applied:
        return
    _applied = True
    define_torchvision_operators()
    import_transformers_late()
    replace_pkg_resources()
    allow_checkpoint_types()
    load_safely_only()
    fix_adjust_hue()
    fix_drop_path()
    tell_empty_datasets()
    quiet_harmless_warnings()
    quiet_init_report()
    patch_in_workers()


def define_torchvision_operators() -> None:
    """Lets torchvision be imported where its compiled part does not load.

    Its ``_meta_registrations`` describe ``torchvision::nms`` and ``torchvision::qnms`` in any case
    and fail with "operator torchvision::nms does not exist" where ``_C`` could not be loaded, such
    as from a CUDA wheel beside the CPU build of torch (pytorch/pytorch#122494). Both operators are
    declared then, without an implementation: nothing here calls them.
    """
    spec = importlib.util.find_spec('torchvision')
    if spec is None or 'torchvision' in sys.modules or hasattr(torch.ops.torchvision, 'nms'):
        return
    suffixes = importlib.machinery.EXTENSION_SUFFIXES
    loader = (importlib.machinery.ExtensionFileLoader, suffixes)
    folder = str(Path(spec.origin).parent)
    compiled = importlib.machinery.FileFinder(folder, loader).find_spec('_C')
    try:
        if compiled is not None:
            torch.ops.load_library(compiled.origin)  # as torchvision itself does next
            return
    except OSError:
        pass
    declaration = library.Library('torchvision', 'FRAGMENT')
    for name in ('nms', 'qnms'):
        declaration.define(f'{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
    _libraries.append(declaration)


def import_transformers_late() -> None:
    """Keeps MMEngine from importing transformers, and PEFT with it, for one optimizer's sake.

    ``mmengine.optim`` registers their ``Adafactor``, which took more than half of the time that
    ``import gleam_mm`` did. It is looked up when a config asks for it.
    """
    known = 'transformers' in sys.modules or 'mmengine.optim' in sys.modules
    if known or importlib.util.find_spec('transformers') is None:
        return
    sys.modules['transformers'] = None  # which makes its import an ImportError, caught there
    try:
        import mmengine.optim  # noqa: F401
    finally:
        del sys.modules['transformers']
    from mmengine.registry import OPTIMIZERS

    if 'Adafactor' not in OPTIMIZERS:
        OPTIMIZERS.register_module(name='Adafactor', module=_adafactor)


def _adafactor(params: Any, **options: Any) -> torch.optim.Optimizer:
    """The optimizer of transformers."""
    from transformers import Adafactor

    return Adafactor(params, **options)


def replace_pkg_resources() -> None:
    """Lets MMEngine find installed packages without ``pkg_resources``, gone from setuptools 81.

    ``_base_ = 'mmpretrain::...'`` and absolute imports in ``read_base()`` need it. Mended after
    release 0.10.7 by open-mmlab/mmengine#1676.
    """
    from mmengine.utils import package_utils

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
    from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
    from numpy.dtypes import Float32DType, Float64DType, Int64DType

    reconstruct = np.ndarray(0).__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    allowed = [HistoryBuffer, OneCycleParamScheduler, np.ndarray, np.dtype]
    allowed += [Float32DType, Float64DType, Int64DType]
    for package in ('numpy.core', 'numpy._core'):  # numpy 1 and 2 read each other's checkpoints
        allowed.append((reconstruct, f'{package}.multiarray._reconstruct'))
        allowed.append((scalar, f'{package}.multiarray.scalar'))
    allowed.append((_checkpoint_getattr, 'builtins.getattr'))
    torch.serialization.add_safe_globals(allowed)


def _checkpoint_getattr(owner: Any, name: str) -> Callable:
    """What ``getattr`` means in a checkpoint: methods of two classes, by name."""
    from mmengine.logging import HistoryBuffer
    from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

    known = (
        *((HistoryBuffer, method) for method in ('min', 'max', 'mean', 'current')),
        *((OneCycleParamScheduler, f'_annealing_{shape}') for shape in ('cos', 'linear')),
    )
    for known_owner, known_name in known:
        if owner is known_owner and name == known_name:
            return getattr(known_owner, known_name)
    raise pickle.UnpicklingError(f'Unsupported global: GLOBAL getattr({owner!r}, {name!r})')


def load_safely_only() -> None:
    """Takes MMEngine's two ways around safe loading away.

    Checkpoints at ``https://`` are loaded by ``load_url``, whose default is to run whatever the
    pickle asks for. And ``_safe_torch_load`` of onedl-mmengine (0.10.12) allows the real
    ``getattr``, and loads unsafely whatever safe loading has refused.
    """
    from mmengine.runner import checkpoint

    if not isinstance(checkpoint.load_url, functools.partial):
        checkpoint.load_url = functools.partial(
            torch.hub.load_state_dict_from_url, weights_only=True
        )
    if hasattr(checkpoint, '_safe_torch_load'):
        checkpoint._safe_torch_load = _load_safely


def _load_safely(file: Any, map_location: Any = None, weights_only: bool | None = None) -> Any:
    """Takes the place of onedl-mmengine's ``_safe_torch_load``, with its signature."""
    return torch.load(file, map_location=map_location, weights_only=True)


def fix_adjust_hue() -> None:
    """Lets ``ColorJitter`` shift hues downwards on numpy 2 (the same as pytorch/vision#8536).

    ``mmcv.adjust_hue`` converts a negative shift by ``np.uint8(...)``, which wrapped around in
    numpy 1 and is an error in numpy 2.
    """
    import mmcv

    try:
        mmcv.adjust_hue(np.zeros((1, 1, 3), np.uint8), -0.1, backend='cv2')
    except OverflowError:
        _rebind('mmcv', mmcv.adjust_hue, _wrap_hue(mmcv.adjust_hue))


def _wrap_hue(adjust_hue: Callable) -> Callable:
    @functools.wraps(adjust_hue)
    def wrapped(img: np.ndarray, hue_factor: float, backend: str | None = None) -> np.ndarray:
        return adjust_hue(img, _HueFactor(hue_factor), backend)

    return wrapped


class _HueFactor(float):
    """A share of the colour circle: its multiple, the shift of the uint8 hue, wraps around."""

    def __mul__(self, steps: float) -> int:
        return int(float(self) * steps) % 256


def fix_drop_path() -> None:
    """Lets ``torch.compile`` trace MMPretrain's ViT, whose DropPath rates are numpy numbers.

    ``drop_path`` compares its rate with zero, and the tracer takes a numpy number for data.
    """
    from mmcv.cnn.bricks.drop import DropPath

    original = DropPath.__init__
    if hasattr(original, '_gleam_mm'):
        return

    @functools.wraps(original)
    def init(self: DropPath, drop_prob: float = 0.1) -> None:
        original(self, float(drop_prob))

    init._gleam_mm = True
    DropPath.__init__ = init


def fix_window_reverse() -> None:
    """Lets Swin be exported for batches of any size.

    MMPretrain puts windows back into maps by a number of images that it divides out in floating
    point and makes an ``int``, which is the number of the images that a graph is traced with. Not
    part of :func:`apply`, as :func:`fix_window_resizing`.
    """
    from mmpretrain.models.utils import ShiftWindowMSA

    ShiftWindowMSA.window_reverse = staticmethod(window_reverse)


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


def fix_window_resizing() -> None:
    """Lets the weights of a Swin or BEiT be loaded at another size of windows or images.

    MMPretrain resizes their tables of position biases with ``scipy.interpolate.interp2d``, which
    SciPy 1.14 has removed. Not part of :func:`apply`, since importing MMPretrain's models takes
    seconds: what imports them calls it.
    """
    from mmpretrain.models.utils import embed
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


def tell_empty_datasets() -> None:
    """Lets MMEngine's datasets say that they have no images.

    Without it they end in "need at least one array to concatenate".
    """
    from mmengine.dataset import BaseDataset

    original = BaseDataset._serialize_data
    if hasattr(original, '_gleam_mm'):
        return

    @functools.wraps(original)
    def serialize(dataset: BaseDataset) -> tuple[np.ndarray, np.ndarray]:
        if not dataset.data_list:
            reason = f' (indices={dataset._indices})' if dataset._indices is not None else ''
            raise ValueError(f'{type(dataset).__name__}: the dataset has no images{reason}')
        return original(dataset)

    serialize._gleam_mm = True
    BaseDataset._serialize_data = serialize


def quiet_harmless_warnings() -> None:
    """Silences what concerns nobody who uses GLEAM-MM.

    On every start, mmcv-lite misses an operator that nothing here uses, and onedl-mmpretrain a
    client of its makers. With every checkpoint, MMEngine deprecates its own ``FileClient`` and
    ``HardDiskBackend``, which it calls itself. Where gradients are accumulated, it says on resuming
    that some are lost, which our checkpoints hold.
    """
    import mmengine.logging
    from mmengine.fileio import file_client
    from mmengine.optim.optimizer import optimizer_wrapper

    warnings.filterwarnings('ignore', r'Fail to import ``MultiScaleDeformableAttention``')
    _drop(optimizer_wrapper, ('Resumed iteration number is not divisible',))
    _drop(file_client, ('"FileClient" will be', '"HardDiskBackend" is the alias'))
    if _is_distribution('onedl-mmpretrain'):
        _drop(mmengine.logging, ('Could not import OneDL',))


def _drop(module: ModuleType, beginnings: tuple[str, ...]) -> None:
    """Makes ``print_log`` of a module drop messages that begin so."""
    original = module.print_log
    if hasattr(original, '_gleam_mm'):
        return

    @functools.wraps(original)
    def print_log(msg: Any, *args: Any, **kwargs: Any) -> None:
        if not str(msg).startswith(beginnings):
            original(msg, *args, **kwargs)

    print_log._gleam_mm = True
    module.print_log = print_log


def quiet_init_report() -> None:
    """Keeps the report of how each parameter was initialised off the terminal.

    MMEngine's ``BaseModule`` writes it into the log file and, where there is none, prints it: a few
    hundred lines for a ViT.
    """
    from mmengine.logging import MMLogger
    from mmengine.model import BaseModule

    original = BaseModule._dump_init_info
    if hasattr(original, '_gleam_mm'):
        return

    @functools.wraps(original)
    def dump(module: BaseModule) -> None:
        handlers = MMLogger.get_current_instance().handlers
        files = [h for h in handlers if isinstance(h, logging.FileHandler)]
        if files and all(file.stream is not None for file in files):  # None: closed, or not begun
            original(module)

    dump._gleam_mm = True
    BaseModule._dump_init_info = dump


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
