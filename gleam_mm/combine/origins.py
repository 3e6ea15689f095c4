"""Where the parameters of a method start, which is what a training has changed them from."""

from collections.abc import Iterable, Mapping

import torch
from mmengine.config import Config
from torch import Tensor

from gleam_mm.checkpoint import CheckpointError, require_backbone
from gleam_mm.combine.files import Trained
from gleam_mm.models import PETLClassifier, build_model
from gleam_mm.models.building import config_of, load_trained

_TOLERANCE = 1e-4


def model_of(trained: Trained, cfg: Config | None) -> PETLClassifier:
    """The model that a file belongs to, with its method at its start.

    Args:
        trained: What the file holds.
        cfg: The config of its training; None takes what the file says.

    Raises:
        FileNotFoundError: The weights of the backbone do not exist.
        CheckpointError: The file does not say its model, or it is another one.
    """
    if 'model' in trained.metadata:
        raise CheckpointError(
            f'{trained.path}: of a model of another library, whose start is not known here; mean, '
            'metric and, with LoRA, product do without'
        )
    model = build_model(config_of(trained.path) if cfg is None else cfg, trained.tensors)
    require_backbone(trained.path, trained.metadata, model.backbone_fingerprint())
    return model


def origins(
    trained: Trained, names: Iterable[str], cfg: Config | None = None
) -> dict[str, Tensor | None]:
    """Where parameters start; None for those that start at random.

    Args:
        trained: What a file holds.
        names: The names of the parameters.
        cfg: As in :func:`model_of`.
    """
    starts = []
    for seed in (0, 1):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            starts.append(model_of(trained, cfg).state_dict())
    alike = {name: torch.equal(starts[0][name], starts[1][name]) for name in names}
    return {name: starts[0][name].clone() if same else None for name, same in alike.items()}


def is_opposite(
    trained: Trained, other: Mapping[str, Tensor], factor: float, cfg: Config | None = None
) -> bool:
    """Whether other parameters of a method change the backbone's weights the opposite way.

    Args:
        trained: What a file holds.
        other: The other parameters, by the same names.
        factor: How many times as much they change them.
        cfg: As in :func:`model_of`.

    Raises:
        MergeError: The method changes no weights.
    """
    model = model_of(trained, cfg)
    own = model.state_dict()
    frozen = {name: t.clone() for name, t in model.backbone.state_dict().items()}
    changes = []
    for tensors in (trained.tensors, other):
        load_trained(model, {**own, **tensors}, trained.path)
        model.petl.merge()
        weights = model.backbone.state_dict()
        changes.append({name: weights[name] - start for name, start in frozen.items()})
        model.petl.unmerge()
    there, back = changes
    return all(
        (back[name] + factor * there[name]).norm()
        <= _TOLERANCE * (factor * there[name].norm() + 1e-2 * start.norm())
        for name, start in frozen.items()
        if start.is_floating_point()
    )
