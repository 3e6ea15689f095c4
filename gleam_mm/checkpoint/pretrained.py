"""The pretrained weights of the paper's backbones: where they are, and getting them.

The paper pre-trains ViT-B/16 on ImageNet-21k, and follow-up work uses Swin-B of ImageNet-22k. Names
are easily confused: timm's old ``vit_base_patch16_224_in21k`` now means other weights (AugReg).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
import safetensors.torch
from mmengine.config import Config

from gleam_mm import shell
from gleam_mm.checkpoint.convert import TARGETS, Conversion, ConversionError, convert_file
from gleam_mm.checkpoint.files import SCHEME, resolve_path
from gleam_mm.checkpoint.reading import read_state_dict
from gleam_mm.config import recipes
from gleam_mm.fileio import write_bytes

FILE = 'model.safetensors'


class FetchError(RuntimeError):
    """Weights that could not be downloaded. The message says how to get them by hand."""


@dataclass(frozen=True)
class Source:
    """Where the weights of a backbone come from.

    Attributes:
        repository: timm's copy on the Hugging Face hub; its file is :data:`FILE`.
        original: The authors' own file, which converts to the same weights; where there is none,
            a page that tells of the weights.
        target: What they are converted for, see :data:`gleam_mm.checkpoint.convert.TARGETS`.
    """

    repository: str
    original: str
    target: str

    @property
    def url(self) -> str:
        """Where a browser finds timm's file."""
        return f'https://huggingface.co/{self.repository}/resolve/main/{FILE}'


_VIT = (
    'timm/vit_base_patch16_224.orig_in21k',
    'https://storage.googleapis.com/vit_models/imagenet21k/ViT-B_16.npz',
)
_SWIN = (
    'timm/swin_base_patch4_window7_224.ms_in22k',
    'https://github.com/SwinTransformer/storage/releases/download/v1.0.0/'
    'swin_base_patch4_window7_224_22k.pth',
)


def _timm(name: str) -> Source:
    """Weights that are taken as timm publishes them."""
    repository = f'timm/{name}'
    return Source(repository, f'https://huggingface.co/{repository}', target='timm-pooled')


SOURCES = {
    'vit-b': Source(*_VIT, target='mmpretrain'),
    'swin-b': Source(*_SWIN, target='mmpretrain'),
    'timm-vit-b': Source(*_VIT, target='timm'),
    'timm-swin-b': Source(*_SWIN, target='timm'),
    'vit-s-dinov2': _timm('vit_small_patch14_dinov2.lvd142m'),
    'vit-b-dinov2': _timm('vit_base_patch14_dinov2.lvd142m'),
    'vit-l-dinov2': _timm('vit_large_patch14_dinov2.lvd142m'),
    'vit-s-dinov3': _timm('vit_small_patch16_dinov3.lvd1689m'),
    'vit-b-dinov3': _timm('vit_base_patch16_dinov3.lvd1689m'),
    'vit-l-dinov3': _timm('vit_large_patch16_dinov3.lvd1689m'),
    'vit-b-clip': _timm('vit_base_patch16_clip_224.openai'),
    'vit-b-siglip2': _timm('vit_base_patch16_siglip_224.v2_webli'),
    'vit-b-mae': _timm('vit_base_patch16_224.mae'),
    'deit3-b': _timm('deit3_base_patch16_224.fb_in22k_ft_in1k'),
    'eva02-b': _timm('eva02_base_patch14_224.mim_in22k'),
    'swinv2-b': _timm('swinv2_base_window12to16_192to256.ms_in22k_ft_in1k'),
}


def destination(backbone: str) -> Path:
    """The file that the config of a backbone loads, relative to the current directory.

    Args:
        backbone: A name of :data:`SOURCES`.
    """
    cfg = Config.fromfile(recipes.families()['backbones'][backbone])
    return Path(cfg.model.backbone.init_cfg.checkpoint)


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
