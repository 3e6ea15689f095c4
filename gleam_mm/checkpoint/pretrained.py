"""Getting the pretrained weights of the paper's backbones."""

from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import safetensors.torch

from gleam_mm import shell
from gleam_mm.checkpoint.convert import TARGETS, Conversion, ConversionError, convert_file
from gleam_mm.checkpoint.files import SCHEME, resolve_path
from gleam_mm.checkpoint.reading import read_state_dict
from gleam_mm.checkpoint.sources import FILE, SOURCES, destination
from gleam_mm.fileio import write_bytes


class FetchError(RuntimeError):
    """Weights that could not be downloaded. The message says how to get them by hand."""


def fetch(
    backbone: str,
    force: bool = False,
    download: Callable[..., str] = huggingface_hub.hf_hub_download,
) -> tuple[Path, Conversion]:
    """Downloads the weights of a backbone and converts them to the file that its config loads.

    The download lies in Hugging Face's cache; an interrupted one goes on where it stopped.

    Args:
        backbone: A name of :data:`SOURCES`.
        force: Replaces the file if it exists.
        download: Called with ``repo_id`` and ``filename``; returns the path of the file.

    Returns:
        The file that was written, and the conversion.

    Raises:
        ConversionError: The file exists, or what was downloaded is not what it should be.
        FetchError: The download failed, or the backbone is unknown.
    """
    if backbone not in SOURCES:
        raise FetchError(f'no weights known for {backbone!r}: there are {", ".join(SOURCES)}')
    source, path = SOURCES[backbone], destination(backbone)
    if path.exists() and not force:
        raise ConversionError(f'{path} exists already: pass --force to replace it')
    try:
        downloaded = download(repo_id=source.repository, filename=FILE)
    except Exception as error:  # the hub's client lets through those of its HTTP library
        raise FetchError(
            f'{backbone}: could not download {source.url} ({type(error).__name__}). Get it, or '
            f'{source.original}, where there is a network, and convert the copy here: '
            f'{command(backbone)}'
        ) from error
    return path, convert_file(downloaded, path, source.target, force)


def command(backbone: str) -> str:
    """The command that converts a file got by hand to the one that the config loads."""
    target = SOURCES[backbone].target
    option = [] if target == TARGETS[0] else ['--target', target]
    return shell.command('convert-weights', *option, 'FILE', destination(backbone))


def listing() -> str:
    """Where the weights of each backbone are, and where they go, as text."""
    return '\n\n'.join(
        f'{backbone}\n'
        f'  timm      {source.url}\n'
        f'  original  {source.original}\n'
        f'  by hand   {command(backbone)}'
        for backbone, source in SOURCES.items()
    )


def shipped(backbone: str) -> Path:
    """The weights of a backbone that come with the package; the file may be missing."""
    return resolve_path(f'{SCHEME}weights/{backbone}.safetensors')


def export_backbone(checkpoint: str | Path, out: str | Path, metadata: dict[str, str]) -> None:
    """Writes the backbone of a classifier's checkpoint, without its head, in half precision.

    Integers, such as the indices of Swin's position biases, stay what they are.

    Raises:
        CheckpointError: The checkpoint cannot be read.
        ValueError: It has no backbone.
    """
    weights = {
        key.removeprefix('backbone.'): (
            value.half() if value.is_floating_point() else value
        ).contiguous()
        for key, value in read_state_dict(checkpoint).items()
        if key.startswith('backbone.')
    }
    if not weights:
        raise ValueError(f'{checkpoint}: no key begins with "backbone."; is it a classifier?')
    write_bytes(out, safetensors.torch.save(weights, {'format': 'pt', **metadata}))
