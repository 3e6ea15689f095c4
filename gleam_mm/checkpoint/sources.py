"""The pretrained weights of the paper's backbones: where they are, and where they go.

The paper pre-trains ViT-B/16 on ImageNet-21k, and follow-up work uses Swin-B of ImageNet-22k. Names
are easily confused: timm's old ``vit_base_patch16_224_in21k`` now means other weights (AugReg).
"""

from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from gleam_mm.config import recipes
from gleam_mm.shell import command

FILE = 'model.safetensors'


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


def how_to_fetch(path: str | Path) -> str:
    """What an advice on missing weights begins with: ``get them by 'gleam-mm ...', or``.

    Args:
        path: Their file. If no backbone of :data:`SOURCES` loads it, there is nothing to say.
    """
    known = next((name for name in SOURCES if destination(name) == Path(path)), None)
    return f'get them by {command("fetch-weights", known)!r}, or ' if known else ''
