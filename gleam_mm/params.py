"""How many parameters a recipe trains, what shares them, and how large its adapter file is."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import safetensors.torch
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from torch import nn

from gleam_mm.config import recipes
from gleam_mm.models import PETLClassifier
from gleam_mm.registry import MODELS, scope_of
from gleam_mm.report import paper


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
    model = cfg.model.to_dict()
    model['backbone'].pop('init_cfg', None)
    head = model.get('head') or {}
    unknown = False
    if head.get('num_classes', 0) is None:
        classes = (cfg.get('data_preprocessor') or {}).get('num_classes')
        unknown = classes is None
        head['num_classes'] = 1 if unknown else classes
    with scope_of(cfg), _quiet_log():
        counted = count(MODELS.build(model))
    return counted._replace(head=None, adapter_bytes=None) if unknown else counted


def count(model: PETLClassifier) -> ParameterCount:
    """Counts the parameters of a model."""
    head = _trained(module for module in (model.neck, model.head) if module is not None)
    trainable = sum(parameter.numel() for _, parameter in model.petl.trainable_parameters())
    total = sum(parameter.numel() for parameter in model.parameters())
    return ParameterCount(
        trainable=trainable,
        shared=_trained([model.petl.shared]),
        local=_trained([model.petl.local]),
        head=head,
        frozen=total - trainable - head,
        adapter_bytes=_file_size(model.state_dict()),
    )


PAPER_BACKBONE = 'vit-b'
PAPER_ORDER = (
    'full',
    'linear',
    'bitfit',
    'vpt-shallow',
    'vpt-deep',
    'adapter',
    'adaptformer',
    'lora',
    'noah',
    'fact-tk',
    'ssf',
    'repadapter',
    'gleam-t',
    'gleam-b',
    'gleam-l',
)
PAPER_REMARKS = {
    'vpt-shallow': 'p d for p prompts; the print is a mean over tasks, each with its own p',
    'vpt-deep': 'L p d for p prompts a block; the print is a mean over tasks',
    'noah': 'the supernet; the print is a mean over the subnets found for the tasks',
    'fact-tk': 'at the largest rank; the print is a mean over tasks, each with its own rank',
    'ssf': 'the print counts the heads of the tasks too',
    'repadapter': 'the print leaves the biases out',
}
"""Why a count is not what the paper prints."""


def paper_table() -> str:
    """The parameter column of the paper's Table 1, counted, beside what the paper prints.

    Returns:
        Lines of text.
    """
    rows = [('method', 'preset', 'parameters', 'M', 'paper', 'remark')]
    for method in PAPER_ORDER:
        printed = paper.row(paper.VTAB, PAPER_BACKBONE, method)
        counted = count_config(recipes.load(f'{PAPER_BACKBONE}_{method}_vtab-cifar')).trainable
        rows.append(
            (
                paper.method_name(method),
                method,
                f'{counted:,}',
                f'{counted / 1e6:.3f}',
                printed.parameters,
                PAPER_REMARKS.get(method, ''),
            )
        )
    return _lay_out(rows, text_columns=(0, 1, 5))


def table(rows: Sequence[tuple[str, ParameterCount]]) -> str:
    """Lays out a table of recipes.

    Args:
        rows: Names and counts.

    Returns:
        Lines of text, as wide as they need to be.
    """
    header = ('recipe', 'trainable', 'shared', 'local', 'head', 'frozen', 'adapter')
    cells = [
        (
            name,
            *(f'{number:,}' for number in counted[:3]),
            '?' if counted.head is None else f'{counted.head:,}',
            f'{counted.frozen:,}',
            '?' if counted.adapter_bytes is None else size_text(counted.adapter_bytes),
        )
        for name, counted in rows
    ]
    return _lay_out([header, *cells], text_columns=(0,))


def size_text(size: int) -> str:
    """A number of bytes as ``87.5 KB`` or ``343.2 MB``."""
    return f'{size / 1e6:.1f} MB' if size >= 1e6 else f'{size / 1e3:.1f} KB'


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


def _lay_out(rows: Sequence[Sequence[str]], text_columns: Sequence[int]) -> str:
    """Lines of text, as wide as they need to be, with a rule under the header."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = ['-' * width for width in widths]
    return '\n'.join(
        '  '.join(
            cell.ljust(width) if column in text_columns else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (rows[0], rule, *rows[1:])
    )


def _trained(modules: Iterable[nn.Module]) -> int:
    return sum(
        parameter.numel()
        for module in modules
        for parameter in module.parameters()
        if parameter.requires_grad
    )


def _file_size(tensors: dict[str, torch.Tensor]) -> int:
    data = sum(tensor.nbytes for tensor in tensors.values())
    # The header lists names, types, shapes and offsets: as large as that of empty tensors, nearly.
    header = safetensors.torch.save({name: torch.empty(0) for name in tensors})
    return data + len(header)
