"""Datasets in a config: one may repeat, concatenate or select others."""

import copy
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


def pipeline_in(config: Any) -> Any:
    """The pipeline of a dataset, or of the first one within that says one; None without any."""
    told = (dataset.get('pipeline') for dataset in datasets_in(config))
    return next((steps for steps in told if steps is not None), None)


def prepared_as(config: Any, other: Any) -> Any:
    """The config of a dataset of which pictures are prepared as another prepares them.

    Args:
        config: That of the dataset; left as it is. All within it that have a pipeline get another.
        other: That of the other one, such as that of a test, which changes nothing at random.
    """
    prepared = copy.deepcopy(config)
    if (pipeline := pipeline_in(other)) is not None:
        for dataset in datasets_in(prepared):
            if 'pipeline' in dataset:
                dataset['pipeline'] = pipeline
    return prepared
