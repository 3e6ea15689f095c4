"""Datasets in a config: one may repeat, concatenate or select others."""

from collections.abc import Iterator
from typing import Any


def datasets_in(config: Any) -> Iterator[Any]:
    """The configs of a dataset and of those within it, the outer ones first.

    Args:
        config: That of a dataset, which may be changed in place between two; nothing is in others
            than mappings.
    """
    if isinstance(config, dict):
        yield config
        for inner in (config.get('dataset'), *(config.get('datasets') or ())):
            yield from datasets_in(inner)
