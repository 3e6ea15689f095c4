"""A part of the data kept for validation, where nobody has split it off."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gleam_mm.arguments import Natural, Probability, check
from gleam_mm.datasets.choose import stratified

__all__ = ['HeldOut', 'shares', 'split_off']


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
            Of several shares each is held out of what the one before has left.
        take_held_out: Whether the dataset is what is held out, by the last of several shares. By
            default it is the rest.
        hold_out_seed: Another seed holds others out. Both parts need the same.
        **kwargs: Further arguments of the dataset.

    Raises:
        ArgumentError: An argument is of another type, or ``hold_out`` no share.
        ValueError: One of both parts would be empty, or ``take_held_out`` takes of nothing.
    """

    def __init__(
        self,
        *args: Any,
        hold_out: float | Sequence[float] = 0,
        take_held_out: bool = False,
        hold_out_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        self._shares = shares(hold_out)
        for share in self._shares:
            check(share, Probability, 'hold_out')
        check(take_held_out, bool, 'take_held_out')
        check(hold_out_seed, Natural, 'hold_out_seed')
        if take_held_out and not self._shares:
            raise ValueError('take_held_out=True: say which share is, such as hold_out=0.2')
        self._held_out = take_held_out
        self._hold_out_seed = hold_out_seed
        super().__init__(*args, **kwargs)

    @property
    def takes_held_out(self) -> bool:
        """Whether the dataset is what is held out, and not the rest."""
        return self._held_out

    def filter_data(self) -> list[dict]:
        """Leaves the other part out."""
        rest = super().filter_data()  # type: ignore[misc]
        held_out: list[dict] = []
        for share in self._shares:
            number = max(1, round(share * len(rest)))
            if number >= len(rest):
                raise ValueError(f'hold_out={share} of {len(rest)} images leaves none')
            held_out, rest = split_off(rest, number, self._hold_out_seed)
        return held_out if self._held_out else rest


def shares(hold_out: float | Sequence[float]) -> list[float]:
    """The shares of a ``hold_out`` that hold anything out."""
    told = hold_out if isinstance(hold_out, Sequence) else [hold_out]
    return [share for share in told if share]


def _classes(samples: Sequence[dict]) -> list[int]:
    """What the parts have in proportion; nothing where a sample has no class, or several."""
    labels = [sample.get('gt_label') for sample in samples]
    known = all(isinstance(label, (int, np.integer)) for label in labels)
    return labels if known else [0] * len(labels)
