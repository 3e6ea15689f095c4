"""The paper's numbers, to stand beside measured ones; they are never mixed up with them.

Source: "GLEAM: Parameter-Efficient Transfer Learning via Global Share Local Transform
Mixture-of-Experts" (ECAI 2025), Table 1 (VTAB-1K, ViT-B/16 pre-trained on ImageNet-21k) and, for
the parameters of Swin-B, Table 4. Top-1 accuracy in %. Rows by task are here for the paper's own
methods and for full tuning and the linear probe; of other methods the average alone.
"""

from dataclasses import dataclass

VTAB = 'vtab'
VIT_B, SWIN_B = 'ViT-B/16', 'Swin-B'

TUNED = frozenset({'alpha', 'top_k', 'scale', 'num_prompts'})
"""Options that the paper, or the paper of a baseline, chooses for each task."""

NOTE = (
    "The public codes behind most of the paper's numbers test after every epoch or every tenth, on "
    'the test split, and print the best; measured ones are of the last epoch.'
)
"""What is said where the paper's numbers stand beside measured ones."""

BACKBONES = {
    'vit-b': VIT_B,
    'timm-vit-b': VIT_B,
    'swin-b': SWIN_B,
    'timm-swin-b': SWIN_B,
}
"""Backbone of a recipe -> what the paper calls it."""

METHODS = {
    'full': 'Full tuning',
    'linear': 'Linear probe',
    'bitfit': 'BitFit',
    'vpt-shallow': 'VPT-Shallow',
    'vpt-deep': 'VPT-Deep',
    'adapter': 'Adapter',
    'adaptformer': 'AdaptFormer',
    'lora': 'LoRA',
    'noah': 'NOAH',
    'fact': 'FacT-TT',
    'fact-tt': 'FacT-TT',
    'fact-tk': 'FacT-TK',
    'ssf': 'SSF',
    'repadapter': 'RepAdapter',
    'convpass': 'Convpass',
    'glora': 'GLoRA',
    'slora': 'SLoRA',
    'gleam-t': 'GLEAM-T',
    'gleam-b': 'GLEAM-B',
    'gleam-l': 'GLEAM-L',
    'gleam': 'GLEAM',
}
"""Method of a recipe -> how tables call it."""


@dataclass(frozen=True)
class PaperRow:
    """What the paper prints of a method.

    Attributes:
        parameters: Millions of trained parameters, as printed.
        average: Mean of the three group means; None where it is not quoted here.
        tasks: Accuracies in the order of the suite's tasks; None where they are not quoted here.
    """

    parameters: str
    average: float | None = None
    tasks: tuple[float, ...] | None = None


def _tasks(text: str) -> tuple[float, ...]:
    return tuple(map(float, text.replace('|', ' ').split()))


# Natural | Specialized | Structured, in the order of the columns of Table 1.
ROWS: dict[tuple[str, str, str], PaperRow] = {
    (VTAB, VIT_B, 'full'): PaperRow(
        '85.8',
        68.9,
        _tasks(
            '68.9 87.7 64.3 97.2 86.9 87.4 38.8 | 79.7 95.7 84.2 73.9 '
            '| 56.3 58.6 41.7 65.5 57.5 46.7 25.7 29.1'
        ),
    ),
    (VTAB, VIT_B, 'linear'): PaperRow(
        '0',
        57.6,
        _tasks(
            '64.4 85.0 63.2 97.0 86.3 36.6 51.0 | 78.5 87.5 68.5 74.0 '
            '| 34.3 30.6 33.2 55.4 12.5 20.0 9.6 19.2'
        ),
    ),
    (VTAB, VIT_B, 'gleam-t'): PaperRow(
        '0.009',
        74.5,
        _tasks(
            '72.6 90.2 71.2 99.2 90.8 86.4 53.9 | 84.4 94.8 84.1 75.5 '
            '| 80.2 66.1 46.7 78.2 80.5 47.8 25.9 38.0'
        ),
    ),
    (VTAB, VIT_B, 'gleam-b'): PaperRow(
        '0.02',
        75.9,
        _tasks(
            '73.0 91.2 71.4 99.2 90.9 88.7 54.3 | 85.7 95.7 85.7 75.1 '
            '| 81.3 66.7 51.0 80.6 85.5 50.6 31.5 40.8'
        ),
    ),
    (VTAB, VIT_B, 'gleam-l'): PaperRow(
        '0.07',
        76.8,
        _tasks(
            '73.2 92.5 72.2 99.3 91.1 90.5 54.8 | 85.8 96.3 86.4 75.7 '
            '| 82.4 68.1 52.1 81.4 85.5 51.9 35.1 42.0'
        ),
    ),
    (VTAB, VIT_B, 'bitfit'): PaperRow('0.10', 65.2),
    (VTAB, VIT_B, 'vpt-shallow'): PaperRow('0.06', 67.8),
    (VTAB, VIT_B, 'vpt-deep'): PaperRow('0.53', 72.0),
    (VTAB, VIT_B, 'adapter'): PaperRow('0.16', 73.9),
    (VTAB, VIT_B, 'adaptformer'): PaperRow('0.16', 74.7),
    (VTAB, VIT_B, 'lora'): PaperRow('0.29', 74.5),
    (VTAB, VIT_B, 'noah'): PaperRow('0.36', 75.5),
    (VTAB, VIT_B, 'fact-tk'): PaperRow('0.07', 75.6),
    (VTAB, VIT_B, 'ssf'): PaperRow('0.24', 75.7),
    (VTAB, VIT_B, 'repadapter'): PaperRow('0.22', 76.1),
    (VTAB, SWIN_B, 'full'): PaperRow('86.7'),
    (VTAB, SWIN_B, 'bitfit'): PaperRow('0.20'),
    (VTAB, SWIN_B, 'gleam'): PaperRow('0.21'),
}
"""Suite, backbone and method -> the paper's row."""


def method_name(method: str) -> str:
    """How tables call a method."""
    return METHODS.get(method, method)


def backbone_name(backbone: str) -> str:
    """How tables call a backbone."""
    known = BACKBONES.get(backbone)
    return f'{known} ({backbone})' if known else backbone


def row(suite: str, backbone: str, method: str) -> PaperRow | None:
    """The paper's row of a method, or None.

    Args:
        suite: Key of the suite.
        backbone: Name of the backbone, as in recipes.
        method: Name of the method, as in recipes.
    """
    return ROWS.get((suite, BACKBONES.get(backbone, ''), method))


def rows(suite: str, backbone: str) -> dict[str, PaperRow]:
    """All rows of the paper for a suite and a backbone, by method."""
    name = BACKBONES.get(backbone)
    return {key[2]: row for key, row in ROWS.items() if key[:2] == (suite, name)}
