"""Settings of a config, checked as it enters by the annotations that arguments have."""

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from mmengine.config import Config

from gleam_mm.arguments import Natural, NonNegative, Positive, Range, check

SETTINGS: dict[str, Any] = {
    'train_cfg.max_epochs': Positive,
    'train_cfg.max_iters': Positive,
    'train_cfg.val_interval': Positive,
    'train_cfg.val_begin': Natural,
    '*_dataloader.batch_size': Positive,
    '*_dataloader.num_workers': Natural,
    'optim_wrapper.accumulative_counts': Positive,
    'optim_wrapper.optimizer.lr': NonNegative,
    'optim_wrapper.optimizer.weight_decay': NonNegative,
    'default_hooks.checkpoint.interval': Positive | Literal[-1],  # -1 is never
    'default_hooks.*.interval': Positive,
    'model.backbone.patch_size': Positive | Sequence[int],
    'model.head.num_classes': Positive | None,
    'model.head.in_channels': Positive,
    'data_preprocessor.num_classes': Positive | None,
    'data_preprocessor.mean': Sequence[float] | None,
    'data_preprocessor.std': Sequence[Annotated[float, Range(0, open=True)]] | None,
    'randomness.seed': Natural | None,
}
"""Keys -> what they take; the first pattern that fits decides."""


def check_settings(cfg: Config) -> None:
    """Checks the settings of a config, wherever they come from.

    Raises:
        ValueError: One is out of range, or two do not fit each other; the message names the key.
    """
    for key, value in _leaves(cfg.to_dict()):
        for pattern, hint in SETTINGS.items():
            if fnmatchcase(key, pattern):
                check(value, hint, key)
                break
    _check_statistics(cfg.get('data_preprocessor') or {})
    _check_patches(cfg.model.get('backbone') or {})


def _leaves(node: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        key = f'{prefix}{name}'
        if isinstance(value, Mapping):
            yield from _leaves(value, f'{key}.')
        else:
            yield key, value


def _check_statistics(preprocessor: Mapping[str, Any]) -> None:
    mean, std = preprocessor.get('mean'), preprocessor.get('std')
    if (mean is None) != (std is None) or (mean is not None and len(mean) != len(std)):
        raise ValueError(
            f'data_preprocessor.mean={mean} and .std={std}: give both, with a number a channel'
        )
    if mean is not None and len(mean) == 2:
        raise ValueError(
            f'data_preprocessor.mean={mean}: give one a channel, 3 of colours or 1 of grey'
        )


def _check_patches(backbone: Mapping[str, Any]) -> None:
    size, patch = backbone.get('img_size'), backbone.get('patch_size')
    if not isinstance(patch, int) or size is None:
        return
    sides = [size] if isinstance(size, int) else list(size)
    if any(side < 1 or side % patch for side in sides):
        raise ValueError(
            f'model.backbone.img_size={size}: choose a multiple of patch_size={patch}, or the last '
            'pixels of every row and column go unseen'
        )
