"""The classifier that a model of a library has of its own: what is new of it, and trained."""

import warnings
from typing import Any

from torch import Tensor, nn

_NAMES = {
    'torchvision': ('heads', 'head'),
    'transformers': ('classifier', 'cls_classifier', 'distillation_classifier'),
}
"""What the classifiers of libraries are called that have no ``get_classifier``, as timm has."""

BESIDE = ('head', *_NAMES['transformers'], 'neck')
"""What the names of tensors begin with that are trained beside a method: classifiers and necks."""


def classifiers(model: Any) -> tuple[nn.Module, ...]:
    """A model's own classifier; a distilled one has two of them, and a backbone alone has none."""
    if hasattr(model, 'get_classifier'):
        heads = model.get_classifier()
        return tuple(heads) if isinstance(heads, tuple | list) else (heads,)
    named = (getattr(model, name, None) for name in _NAMES.get(_library(model), ()))
    return tuple(head for head in named if isinstance(head, nn.Module))


def warn_of_unknown(model: nn.Module, stacklevel: int) -> None:
    """Warns of a model that classifies, where its classifier is not found.

    Args:
        model: The model.
        stacklevel: As of ``warnings.warn``, from the caller on.
    """
    library = _library(model)
    classifies = any('ImageClassification' in base.__name__ for base in type(model).__mro__)
    if (library == 'torchvision' or (library and classifies)) and not classifiers(model):
        warnings.warn(
            f'{type(model).__name__} has no {" or ".join(_NAMES[library])}: its classifier is not '
            'found, and stays frozen unless you call requires_grad_(True) on it',
            stacklevel=stacklevel + 1,
        )


def outputs(model: nn.Module) -> int | None:
    """How many numbers a model's own classifier gives: what its last layer says, or the model."""
    for head in classifiers(model):
        sizes = [
            size
            for part in head.modules()
            if (size := getattr(part, 'out_features', getattr(part, 'out_channels', None)))
        ]
        if sizes:
            return sizes[-1]
    return getattr(model, 'num_classes', None)


def scores_of(logits: Tensor) -> Tensor:
    """What a classifier gives, as scores from 0 to 1.

    Those of several classes are shares of one. A single number is the logit of the one class that
    there is, against there being none, as ``binary_cross_entropy_with_logits`` trains it.

    Args:
        logits: Of shape (B, classes).
    """
    logits = logits.float()
    return logits.sigmoid() if logits.shape[-1] == 1 else logits.softmax(-1)


def _library(model: nn.Module) -> str:
    """The library with classifiers of known names that a model's class, or a base of it, is of."""
    of_bases = (base.__module__.partition('.')[0] for base in type(model).__mro__)
    return next((name for name in of_bases if name in _NAMES), '')
