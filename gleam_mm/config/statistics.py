"""How images were normalised when a backbone was pretrained."""

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

from mmengine.config import ConfigDict

from gleam_mm.config import recipes


class Statistics(NamedTuple):
    """Numbers a channel, for pixels from 0 to 255.

    Attributes:
        mean: What is subtracted.
        std: What is divided by.
        source: Who says so.
    """

    mean: Sequence[float]
    std: Sequence[float]
    source: str


def pretrained_statistics(backbone: ConfigDict) -> Statistics | None:
    """What the weights of a backbone were trained with, where that is recorded.

    The presets in ``configs/_base_/backbones`` say it of their files of weights, and timm of its
    models.

    Args:
        backbone: The config of the backbone.
    """
    init_cfg = backbone.get('init_cfg') or {}
    file = init_cfg.get('checkpoint') if isinstance(init_cfg, dict) else None
    if file is not None:
        for name in recipes.families()['backbones']:
            checkpoint, normalize = recipes.pretraining(name)
            if normalize and PurePath(str(checkpoint)).name == PurePath(str(file)).name:
                numbers = recipes.NORMALIZATIONS[normalize]
                return Statistics(numbers['mean'], numbers['std'], f'the preset {name}')
    return _of_timm(backbone.get('model_name'))


def _of_timm(model: Any) -> Statistics | None:
    if model is None:
        return None
    from timm.models import get_pretrained_cfg  # takes a second to import

    known = get_pretrained_cfg(model, allow_unregistered=True)
    if known is None:
        return None
    mean, std = ([255 * number for number in numbers] for numbers in (known.mean, known.std))
    return Statistics(mean, std, f"timm's {model}")
