"""Trained models for other runtimes: ONNX, TorchScript and ``torch.export``."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor, nn

from gleam_mm.fileio import require_new
from gleam_mm.inference.predictor import Predictor
from gleam_mm.petl import MergeError, PETLMethod

BATCHES = (1, 2, 5)
"""The sizes that an exported model is compared at."""

_TOLERANCE = 1e-3
"""How far outputs may differ, as a share of their largest."""

_COLOURS = re.compile('\x1b\\[[0-9;]*m')
"""What terminals show messages in colours by."""


class ExportError(RuntimeError):
    """A model cannot be exported, or gives other outputs then; the message says why."""


class Exported(NamedTuple):
    """An exported model.

    Attributes:
        path: The file.
        inputs: Shape of the input, whose first axis is free.
        differences: Batch size -> the largest difference of an output from PyTorch's.
    """

    path: Path
    inputs: tuple[int, ...]
    differences: dict[int, float]


class Exportable(nn.Module):
    """A trained model as one function of pixels: normalisation, backbone, method and head.

    Its input ``images`` are (B, 3, H, W) with numbers from 0 to 255, RGB, resized and cropped as
    the adapter says; the output is what the head gives, ``logits`` (B, classes) or numbers, or a
    tensor a task.

    Args:
        model: A classifier.
        preprocessor: What normalises its inputs.
        reads_bgr: Whether it was trained on BGR.
    """

    def __init__(self, model: nn.Module, preprocessor: Any, reads_bgr: bool = False) -> None:
        super().__init__()
        self.model = model
        self.turns = reads_bgr
        self.normalizes = bool(getattr(preprocessor, '_enable_normalize', False))
        if self.normalizes:
            # Not `mean`: exporters name what they compute so, and names have to differ.
            self.register_buffer('pixel_mean', preprocessor.mean.clone())
            self.register_buffer('pixel_std', preprocessor.std.clone())
        self.requires_grad_(False)
        self.eval()

    def forward(self, images: Tensor) -> Any:
        """Classifies pixels."""
        if self.turns:
            images = images.flip(1)
        if self.normalizes:
            images = (images - self.pixel_mean) / self.pixel_std
        outputs = self.model(images)
        return tuple(outputs.values()) if isinstance(outputs, dict) else outputs


def export(
    adapter: str | Path,
    out: str | Path,
    weights: str | Path | None = None,
    config: str | Path | Config | None = None,
) -> Exported:
    """Writes a trained model, backbone and all, with a free batch, and compares it with PyTorch's.

    Args:
        adapter: What a training or :func:`gleam_mm.save` has written.
        out: An ``.onnx`` file; ``.pt`` for TorchScript; or ``.pt2`` for ``torch.export``.
        weights: As of :class:`~gleam_mm.Predictor`.
        config: As of :class:`~gleam_mm.Predictor`.

    Raises:
        ExportError: The model cannot be exported, or gives other outputs then. Nothing is written.
        FileExistsError: ``out`` exists.
        ImportError: Packages are missing: ``pip install 'gleam-mm[export]'``.
        ValueError: ``out`` has another ending.
    """
    out = Path(out)
    _check_ending(out)
    require_new(out)
    predictor = Predictor(adapter, weights, 'cpu', config)
    preparation = predictor.preparation
    model = Exportable(predictor.model, preparation.preprocessor, preparation.gives_bgr)
    shape = preparation.shape
    told = {
        'classes': json.dumps(predictor.classes, ensure_ascii=False),
        'input': f'RGB, 0 to 255, (batch, {", ".join(map(str, shape))})',
        'adapter': Path(adapter).name,
    }
    try:
        return export_model(model, shape, out, told)
    except ExportError as error:
        raise ExportError(f'{adapter}: {error}') from error


def export_model(
    model: Exportable, shape: tuple[int, ...], out: Path, told: Mapping[str, str]
) -> Exported:
    """Writes a model and compares it, as :func:`export` does.

    A method that the weights of the backbone can express is folded into them for it.

    Args:
        model: The model, on the CPU.
        shape: Channels, height and width of an input.
        out: The file; its ending says the format.
        told: What the file says of the model, text by name.

    Raises:
        ExportError: The model cannot be exported, or gives other outputs then. Nothing is written.
        ValueError: ``out`` has another ending.
    """
    _check_ending(out)
    write, run = _FORMATS[out.suffix]
    out.parent.mkdir(parents=True, exist_ok=True)
    with (
        _folded(model, shape) as reference,
        TemporaryDirectory(dir=out.parent, prefix='.export-') as folder,
    ):
        file = Path(folder) / out.name
        with _telling(f'cannot be exported to {out.suffix}'):
            write(model, _pixels(2, shape), file, told)
        with _telling(f'exported to {out.suffix}, it does not run for batches of other sizes'):
            differences = _compare(reference, run(file), shape)
        if (worst := max(differences.values())) > _TOLERANCE:
            raise ExportError(f'exported to {out.suffix}, its outputs differ by {worst:.2g}')
        file.replace(out)
    return Exported(out, (-1, *shape), differences)


def _check_ending(out: Path) -> None:
    if out.suffix not in _FORMATS:
        raise ValueError(f'{out}: the ending is one of {", ".join(_FORMATS)}')


def _pixels(batch: int, shape: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(batch)
    return torch.randint(0, 256, (batch, *shape), generator=generator).float()


@contextmanager
def _telling(what: str) -> Iterator[None]:
    """What is traced and run raises nearly anything; the first cause says most."""
    try:
        yield
    except ImportError:
        raise
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        lines = _COLOURS.sub('', str(cause)).strip().splitlines()
        raise ExportError(f'{what}: {lines[0] if lines else type(cause).__name__}') from error


@contextmanager
def _folded(model: Exportable, shape: tuple[int, ...]) -> Iterator[dict[int, list[np.ndarray]]]:
    """Gives the outputs of a model, and has its method merged meanwhile, if it can be."""
    with torch.no_grad():
        outputs = {batch: _arrays(model(_pixels(batch, shape))) for batch in BATCHES}
    petl, merged = getattr(model.model, 'petl', None), False
    if isinstance(petl, PETLMethod) and not petl.merged:
        with suppress(MergeError):
            petl.merge()
            merged = True
    try:
        yield outputs
    finally:
        if merged:
            petl.unmerge()


def _arrays(outputs: Any) -> list[np.ndarray]:
    return [one.numpy() for one in (outputs if isinstance(outputs, tuple) else (outputs,))]


def _compare(
    reference: Mapping[int, list[np.ndarray]],
    run: Callable[[Tensor], list[np.ndarray]],
    shape: tuple[int, ...],
) -> dict[int, float]:
    differences = {}
    for batch, ours in reference.items():
        theirs = run(_pixels(batch, shape))
        differences[batch] = max(
            float(np.abs(a - b).max() / max(1.0, np.abs(a).max()))
            for a, b in zip(ours, theirs, strict=True)
        )
    return differences


def _program(model: nn.Module, images: Tensor) -> Any:
    batch = torch.export.Dim('batch', min=1)
    return torch.export.export(
        model, (images,), dynamic_shapes={'images': {0: batch}}, strict=False
    )


def _write_program(model: nn.Module, images: Tensor, file: Path, told: Mapping[str, str]) -> None:
    extra = {f'{name}.txt': text for name, text in told.items()}
    torch.export.save(_program(model, images), file, extra_files=extra)


def _run_program(file: Path) -> Callable[[Tensor], list[np.ndarray]]:
    return _of_module(torch.export.load(file).module())


def _write_script(model: nn.Module, images: Tensor, file: Path, told: Mapping[str, str]) -> None:
    with torch.no_grad():
        script = torch.jit.trace(model, (images,), check_trace=False)
    torch.jit.save(script, str(file), _extra_files={f'{name}.txt': t for name, t in told.items()})


def _run_script(file: Path) -> Callable[[Tensor], list[np.ndarray]]:
    return _of_module(torch.jit.load(str(file)))


def _of_module(module: Any) -> Callable[[Tensor], list[np.ndarray]]:
    def run(images: Tensor) -> list[np.ndarray]:
        with torch.no_grad():
            return _arrays(module(images))

    return run


def _write_onnx(model: nn.Module, images: Tensor, file: Path, told: Mapping[str, str]) -> None:
    onnx = _extra('onnx')
    _extra('onnxscript')
    with torch.no_grad():
        outputs = model(images)
    number = len(outputs) if isinstance(outputs, tuple) else 1
    program = torch.onnx.export(
        _program(model, images),
        input_names=['images'],
        output_names=['logits'] if number == 1 else [f'logits_{i}' for i in range(number)],
        dynamo=True,
        verbose=False,
    )
    proto = program.model_proto  # type: ignore[union-attr]
    onnx.helper.set_model_props(proto, dict(told))
    onnx.save(proto, str(file))


def _run_onnx(file: Path) -> Callable[[Tensor], list[np.ndarray]]:
    session = _extra('onnxruntime').InferenceSession(str(file), providers=['CPUExecutionProvider'])
    return lambda images: session.run(None, {'images': images.numpy()})


def _extra(name: str) -> Any:
    try:
        return __import__(name)
    except ImportError as error:
        raise ImportError(f"{name} is missing: pip install 'gleam-mm[export]'") from error


_FORMATS = {
    '.onnx': (_write_onnx, _run_onnx),
    '.pt': (_write_script, _run_script),
    '.pt2': (_write_program, _run_program),
}
