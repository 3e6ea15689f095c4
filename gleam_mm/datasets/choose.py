"""Seeded choices of images, the same on any machine: every class in proportion, or few of each."""

from collections.abc import Sequence

import numpy as np

__all__ = ['few_of_each', 'stratified']


def stratified(labels: Sequence[int], sizes: Sequence[int], seed: int) -> list[list[int]]:
    """Chooses disjoint parts of a pool, every class in proportion in each.

    Every class is shuffled and spread evenly over the unit interval; reading all from left to right
    then meets the classes in proportion wherever one stops.

    Args:
        labels: Label of each image of the pool.
        sizes: Number of images of each part.
        seed: Another seed makes another choice.

    Returns:
        Indices into the pool for each part.

    Raises:
        ValueError: The pool is too small.
    """
    labels = np.asarray(labels)
    if sum(sizes) > len(labels):
        raise ValueError(f'{sum(sizes):,} images are needed, but there are only {len(labels):,}')
    rng = np.random.RandomState(seed)  # its stream never changes between NumPy versions
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        place[members] = (np.arange(len(members)) + rng.random_sample()) / len(members)
    order = np.argsort(place, kind='stable')
    stops = np.cumsum(sizes)
    return [
        [int(index) for index in order[stop - size : stop]]
        for size, stop in zip(sizes, stops, strict=True)
    ]


def few_of_each(labels: Sequence[int], shots: int, seed: int) -> list[int]:
    """Chooses so many images of every class.

    Raises:
        ValueError: A class has too few.
    """
    labels = np.asarray(labels)
    rng = np.random.RandomState(seed)
    chosen = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) < shots:
            raise ValueError(f'class {label} has {len(members)} images, fewer than {shots}')
        chosen += [int(index) for index in rng.permutation(members)[:shots]]
    return chosen
