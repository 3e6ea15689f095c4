"""Keys of a config: misspelt ones and values of no use are found where it enters."""

import inspect
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner

from gleam_mm.messages import hint_at

# What something reads of a config: MMEngine's runner, and beside it the tools and ourselves. A
# config may have names of its own as well, such as a pipeline that it uses twice.
KNOWN = {
    *(inspect.signature(Runner.__init__).parameters.keys() - {'self', 'cfg'}),
    *('auto_scale_lr', 'custom_imports', 'head_loss', 'method', 'normalize', 'runner_type'),
    *('compile', 'cuda_graph', 'find_unused_parameters', 'model_wrapper_cfg', 'strategy'),
    *('tta_model', 'tta_pipeline'),
}

DATALOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')

VAL_KEYS = ('val_dataloader', 'val_cfg', 'val_evaluator')
"""What a config validates with; it has all of them, or none."""

TEST_KEYS = ('test_dataloader', 'test_cfg', 'test_evaluator')
"""What it tests with, in the same order."""


def check_keys(cfg: Config) -> None:
    """Refuses a key of the whole config that is one letter off a known one.

    Raises:
        ValueError: There is one; the message names both.
    """
    for key in cfg.keys() - KNOWN:
        for known in KNOWN:
            if _is_typo(key, known):
                raise ValueError(
                    f'unknown key {key!r}: did you mean {known!r}? If it is a name of your own, '
                    'call it otherwise'
                )


def check_option(cfg: Config, key: str) -> None:
    """Refuses an override of a key that is neither in the config nor known.

    Raises:
        ValueError: There is no such key; the message names the nearest.
    """
    first = key.partition('.')[0]
    if first not in cfg and first not in KNOWN:
        hint = hint_at(first, {*KNOWN, *cfg})
        raise ValueError(f'option {key!r}: the config has no {first!r}{hint}')


def check_values(value: Any, key: str = '') -> None:
    """Refuses sets, which neither configs nor files of JSON can write down.

    Raises:
        ValueError: There is one; the message names its key.
    """
    if isinstance(value, set | frozenset):
        raise ValueError(f'{key} is a set, {value!r}: write a list')
    if isinstance(value, Mapping):
        for name, inner in value.items():
            check_values(inner, f'{key}.{name}' if key else str(name))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            check_values(inner, f'{key}.{index}')


def _is_typo(name: str, known: str) -> bool:
    """Whether one letter is wrong, missing or too many, or two have changed places."""
    pairs = zip(name, known, strict=False)
    start = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(name), len(known)))
    ours, theirs = name[start:], known[start:]
    swapped = ours[:2] == theirs[:2][::-1] and ours[2:] == theirs[2:]
    return swapped or ours[1:] in (theirs, theirs[1:]) or ours == theirs[1:]
