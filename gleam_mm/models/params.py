"""How many parameters a model trains, what shares them, and how large its adapter file is."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import safetensors.torch
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from torch import nn

from gleam_mm.checkpoint.packing import pack
from gleam_mm.models.classifier import PETLClassifier
from gleam_mm.petl.bits import packed_matrices
from gleam_mm.registry import MODELS, scope_of


class ParameterCount(NamedTuple):
    """Numbers of parameters of a :class:`~gleam_mm.models.PETLClassifier`.

    Attributes:
        trainable: What the method trains. The head and the neck are not in it, as in papers.
        shared: Of these, parameters that several sites share.
        local: Of these, parameters of single sites.
        head: Trained parameters of head and neck; None where the number of classes is not known.
        frozen: Parameters that are not trained.
        adapter_bytes: Size of the adapter file, without its metadata; None like ``head``.
    """

    trainable: int
    shared: int
    local: int
    head: int | None
    frozen: int
    adapter_bytes: int | None


def count_config(cfg: Config) -> ParameterCount:
    """Counts the parameters of a config, without reading weights or data.

    Where neither the head nor ``data_preprocessor.num_classes`` has a number of classes, the head
    is not counted.

    Args:
        cfg: A whole config; left as it is.

    Raises:
        ValueError: The config has no PETL method, or one that does not fit its backbone.
    """
    if 'petl' not in cfg.model:
        raise ValueError(f'{cfg.filename}: the config has no PETL method in model.petl to count')
    counted = count(build_bare(cfg))
    unknown = 'num_classes' in (cfg.model.get('head') or {}) and _classes(cfg) is None
    return counted._replace(head=None, adapter_bytes=None) if unknown else counted


def build_bare(cfg: Config) -> PETLClassifier:
    """Builds the model of a config without reading weights or data, and without a pass.

    Args:
        cfg: A whole config; left as it is.

    Raises:
        ValueError: The method does not fit its backbone.
    """
    model = cfg.model.to_dict()
    model['backbone'].pop('init_cfg', None)
    model.pop('teacher', None)
    model['probe'] = False
    head = model.get('head') or {}
    if 'num_classes' in head:
        head['num_classes'] = _classes(cfg) or 2  # the fewest that a head tells apart
    with scope_of(cfg), _quiet_log():
        return MODELS.build(model)


def _classes(cfg: Config) -> int | None:
    """How many classes the head tells, where the config says it."""
    named = (cfg.model.get('head') or {}).get('num_classes')
    return named or (cfg.get('data_preprocessor') or {}).get('num_classes')


def count(model: PETLClassifier) -> ParameterCount:
    """Counts the parameters of a model."""
    head = _trained(module for module in (model.neck, model.head) if module is not None)
    trainable = sum(parameter.numel() for _, parameter in model.petl.trainable_parameters())
    total = size(model)
    members = list(model.petl.members())
    return ParameterCount(
        trainable=trainable,
        shared=_trained(member.shared for member in members),
        local=_trained(
            own
            for member in members
            for name, own in member.local.items()
            if name not in member.parts
        ),
        head=head,
        frozen=total - trainable - head,
        adapter_bytes=_file_size(pack(model.state_dict(), packed_matrices(model))),
    )


def size(module: nn.Module) -> int:
    """Numbers in all parameters of a module, those included that DeepSpeed has shared out."""
    return sum(getattr(p, 'ds_numel', p.numel()) for p in module.parameters())


@contextmanager
def _quiet_log() -> Iterator[None]:
    """Leaves out what backbones log of themselves while they are built."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _trained(modules: Iterable[nn.Module]) -> int:
    parameters = {p for module in modules for p in module.parameters() if p.requires_grad}
    return sum(parameter.numel() for parameter in parameters)


def _file_size(tensors: dict[str, torch.Tensor]) -> int:
    data = sum(tensor.nbytes for tensor in tensors.values())
    # The header lists names, types, shapes and offsets: as large as that of empty tensors, nearly.
    header = safetensors.torch.save({name: torch.empty(0) for name in tensors})
    return data + len(header)
