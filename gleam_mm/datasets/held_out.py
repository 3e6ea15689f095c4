"""A part of the data kept for validation, where nobody has split it off."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gleam_mm.arguments import Probability, check
from gleam_mm.datasets.choose import stratified

__all__ = ['HeldOut', 'split_off']


def split_off(samples: Sequence[dict], number: int, seed: int) -> tuple[list[dict], list[dict]]:
    """Splits samples in two, every class in proportion; both parts keep the order.

    Args:
        samples: Those of a dataset, with ``gt_label`` where they have a class.
        number: How many are split off.
        seed: Another seed splits others off.

    Returns:
        What is split off, and the rest.
    """
    chosen = set(*stratified(_classes(samples), [number], seed))
    return (
        [sample for index, sample in enumerate(samples) if index in chosen],
        [sample for index, sample in enumerate(samples) if index not in chosen],
    )


class HeldOut:
    """Mixed into a dataset of MMEngine: it is one of two parts, which have nothing in common.

    Args:
        hold_out: The share of the images that is held out, every class in proportion; 0 keeps all.
        take_held_out: Whether the dataset is what is held out. By default it is the rest.
        hold_out_seed: Another seed holds others out. Both parts need the same.
        **kwargs: Further arguments of the dataset.

    Raises:
        ArgumentError: ``hold_out`` is no share, or ``take_held_out`` of nothing.
        ValueError: One of both parts would be empty.
    """

    def __init__(
        self,
        *args: Any,
        hold_out: float = 0,
        take_held_out: bool = False,
        hold_out_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        check(hold_out, Probability, 'hold_out')
        if take_held_out and not hold_out:
            raise ValueError('take_held_out=True: say which share is, such as hold_out=0.2')
        self._hold_out, self._held_out = hold_out, take_held_out
        self._hold_out_seed = hold_out_seed
        super().__init__(*args, **kwargs)

    def filter_data(self) -> list[dict]:
        """Leaves the other part out."""
        samples = super().filter_data()  # type: ignore[misc]
        if not self._hold_out:
            return samples
        held = max(1, round(self._hold_out * len(samples)))
        if held == len(samples):
            raise ValueError(f'hold_out={self._hold_out} of {len(samples)} images leaves none')
        held_out, rest = split_off(samples, held, self._hold_out_seed)
        return held_out if self._held_out else rest


def _classes(samples: Sequence[dict]) -> list[int]:
    """What the parts have in proportion; nothing where a sample has no class, or several."""
    labels = [sample.get('gt_label') for sample in samples]
    known = all(isinstance(label, (int, np.integer)) for label in labels)
    return labels if known else [0] * len(labels)
