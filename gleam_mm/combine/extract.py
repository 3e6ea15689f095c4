"""A LoRA out of a fully tuned model, and what it leaves out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor

from gleam_mm.checkpoint import FINGERPRINT, CheckpointError, classes_of, read_state_dict
from gleam_mm.combine import lowrank
from gleam_mm.fileio import require_new
from gleam_mm.inference.saving import save_classifier
from gleam_mm.layouts import LINEAR_ROLES
from gleam_mm.models import PETLClassifier, build_model

_TIMM = 'timm_model.'  # what TIMMBackbone puts before timm's names


@dataclass(frozen=True)
class Extracted:
    """What :func:`extract` has kept.

    Attributes:
        rank: The rank of the LoRA.
        energies: Name of a Linear -> the share of its update's squared norm that the LoRA has.
        lost: Name of a parameter that the adapter does not hold -> how much it was changed, in
            parts of its own norm.
    """

    rank: int
    energies: dict[str, float]
    lost: dict[str, float]


def full_model(cfg: Config, full: str | Path) -> PETLClassifier:
    """The model of a config with fully tuned weights, and FullTuning as its method.

    Args:
        cfg: The config, whose backbone is the one that was tuned; left as it is.
        full: A checkpoint of MMPretrain, of timm, or of a ``FullTuning`` of ours.

    Raises:
        FileNotFoundError: The checkpoint, or the weights of the backbone, do not exist.
        CheckpointError: The checkpoint does not have the backbone and a head of the config.
    """
    tensors = {k: t for k, t in read_state_dict(full).items() if k != FINGERPRINT}
    classes = _head_size(tensors)
    if classes is None and cfg.model.get('head') is not None:
        raise CheckpointError(f'{full}: has no head.fc.weight or head.weight of a classifier')
    model = _build(cfg, dict(type='FullTuning'), classes)
    own = model.backbone.state_dict()
    names = {name for name, _ in model.backbone.named_parameters()}
    found, prefix = _under(tensors, names, full)
    with torch.no_grad():
        _copy({k: own[k] for k in found}, found, full)
    if model.with_head:
        outer = prefix.removesuffix('backbone.')
        head = model.head.state_dict()
        given = _heads(tensors, head, outer)
        if given is None:
            raise CheckpointError(
                f'{full}: its head is none of a {type(model.head).__name__}: {", ".join(head)}'
            )
        _copy(head, given, full)
    return model


@torch.no_grad()
def extract(
    full: str | Path,
    cfg: Config,
    out: str | Path,
    rank: int | None = None,
    energy: float | None = None,
) -> Extracted:
    r"""Writes what full tuning has changed as an adapter (PHLoRA, 2025).

    .. math::
        W - W_0 = U S V^T, \quad B = U_r S_r^{1/2}, \quad A = S_r^{1/2} V_r^T

    for every qkv, proj, fc1 and fc2. Biases and the weights of norms are kept as they are, by
    :class:`~gleam_mm.petl.BitFit` in one :class:`~gleam_mm.petl.Compose` with the
    :class:`~gleam_mm.petl.LoRA`, and so is the head. What else has changed is lost: the embedding
    of patches and positions.

    Args:
        full: As in :func:`full_model`.
        cfg: A config whose backbone has the weights that the tuning began with; left as it is.
        out: The ``.safetensors`` file to write.
        rank: The rank of all updates.
        energy: Or the share of its squared norm that each update has to keep at least. The LoRA
            has the largest of the ranks that it takes.

    Raises:
        FileExistsError: ``out`` exists.
        FileNotFoundError: A file does not exist.
        CheckpointError: The checkpoint does not belong to the config.
        ValueError: Not one of ``rank`` and ``energy`` is given, or it is out of range.
    """
    if (rank is None) == (energy is None):
        raise ValueError('give one of rank and energy')
    if rank is not None and rank < 1:
        raise ValueError(f'rank={rank}: give a rank of at least 1')
    if energy is not None and not 0 < energy < 1:
        raise ValueError(f'energy={energy}: give a share between 0 and 1')
    require_new(out)
    tuned = full_model(cfg, full)
    weights = tuned.backbone.state_dict()
    classes = getattr(tuned.head, 'num_classes', None)
    start = _build(cfg, dict(type='LinearProbe'), classes)
    pretrained = {name: tensor.clone() for name, tensor in start.backbone.state_dict().items()}
    changes = {
        site.name: weights[f'{site.name}.weight'] - pretrained[f'{site.name}.weight']
        for site in start.petl.layout.sites(LINEAR_ROLES)
    }
    if energy is not None:
        rank = max(lowrank.rank_of_energy(change, energy) for change in changes.values())
    assert rank is not None
    lora = dict(type='LoRA', rank=rank, alpha=float(rank), sites=list(LINEAR_ROLES))
    beside = dict(type='BitFit', norms=True)
    methods = dict(type='Compose', methods=dict(lora=lora, bitfit=beside))
    model = _build(cfg, methods, classes)
    energies = {}
    for site in model.petl.parts['lora'].sites.values():
        product, kept, whole = lowrank.cut_matrix(changes[site.name], rank)
        energies[site.name] = kept / whole if whole else 1.0
        pair = model.petl.parts['lora'].local[site.key]
        pair.up.copy_(product.up)
        pair.down.copy_(product.down)
    adopted = dict(model.petl.parts['bitfit'].adopted_parameters())
    for name, parameter in adopted.items():
        parameter.copy_(weights[name])
    if model.with_head:
        model.head.load_state_dict(tuned.head.state_dict())
    kept_names = adopted.keys() | {f'{name}.weight' for name in changes}
    lost = {
        name: float((weights[name] - before).norm() / before.norm().clamp_min(1e-12))
        for name, before in pretrained.items()
        if name not in kept_names and not torch.equal(weights[name], before)
    }
    save_classifier(model, out, cfg, classes_of(full))
    return Extracted(rank, energies, lost)


def _build(cfg: Config, petl: dict[str, Any], classes: int | None) -> PETLClassifier:
    cfg = cfg.copy()
    cfg.model.petl = petl
    if classes is not None and cfg.model.get('head') is not None:
        cfg.model.head.num_classes = classes
    return build_model(cfg)


def _head_size(tensors: Mapping[str, Tensor]) -> int | None:
    """The number of classes of a checkpoint's head."""
    for name, tensor in tensors.items():
        if name.endswith(('head.fc.weight', 'head.weight')):
            return len(tensor)
    return None


def _under(
    tensors: Mapping[str, Tensor], names: Iterable[str], path: str | Path
) -> tuple[dict[str, Tensor], str]:
    """A checkpoint's tensors of a backbone by its own names, and what stands before them there."""
    names = sorted(names)
    for own in ('', _TIMM):
        first = names[0].removeprefix(own)
        for key in tensors:
            prefix = key.removesuffix(first)
            theirs = {name: prefix + name.removeprefix(own) for name in names}
            if key.endswith(first) and all(given in tensors for given in theirs.values()):
                return {name: tensors[given] for name, given in theirs.items()}, prefix
    raise CheckpointError(
        f'{path}: does not have the weights of the backbone of the config, such as {names[0]}'
    )


def _heads(
    tensors: Mapping[str, Tensor], head: Mapping[str, Tensor], outer: str
) -> dict[str, Tensor] | None:
    """The head of MMPretrain (``head.fc``), or of timm (``head``)."""
    for inner in ('', 'fc.'):
        theirs = {name: f'{outer}head.{name.removeprefix(inner)}' for name in head}
        if all(given in tensors for given in theirs.values()):
            return {name: tensors[given] for name, given in theirs.items()}
    return None


def _copy(own: Mapping[str, Tensor], given: Mapping[str, Tensor], path: str | Path) -> None:
    for name, tensor in given.items():
        if tensor.shape != own[name].shape:
            raise CheckpointError(
                f'{path}: {name} has the shape {tuple(tensor.shape)}, but '
                f'{tuple(own[name].shape)} in the model of the config'
            )
        own[name].copy_(tensor)
