"""Tables of parameter counts: of any recipes, and the parameter column of the paper's Table 1."""

from collections.abc import Iterable

from gleam_mm.config import recipes
from gleam_mm.models import params
from gleam_mm.output import tables
from gleam_mm.report import paper

BACKBONE = 'vit-b'
ORDER = (
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
REMARKS = {
    'vpt-shallow': 'p d for p prompts; the print is a mean over tasks, each with its own p',
    'vpt-deep': 'L p d for p prompts a block; the print is a mean over tasks',
    'noah': 'the supernet; the print is a mean over the subnets found for the tasks',
    'fact-tk': 'at the largest rank; the print is a mean over tasks, each with its own rank',
    'ssf': 'the print counts the heads of the tasks too',
    'repadapter': 'the print leaves the biases out',
}
"""Why a count is not what the paper prints."""


def recipes_table(counts: Iterable[tuple[str, params.ParameterCount]]) -> str:
    """A table of recipes for a terminal.

    Args:
        counts: Names and counts.
    """
    head = ('recipe', 'trainable', 'shared', 'local', 'head', 'frozen', 'adapter')
    body = [
        (
            name,
            *(f'{number:,}' for number in counted[:3]),
            '?' if counted.head is None else f'{counted.head:,}',
            f'{counted.frozen:,}',
            '?' if counted.adapter_bytes is None else tables.size(counted.adapter_bytes),
        )
        for name, counted in counts
    ]
    return tables.text(head, body, left=('recipe',))


def paper_table() -> str:
    """The parameter column of the paper's Table 1, counted, beside what the paper prints."""
    body = []
    for method in ORDER:
        printed = paper.row(paper.VTAB, BACKBONE, method)
        counted = params.count_config(recipes.load(f'{BACKBONE}_{method}_vtab-cifar')).trainable
        body.append(
            (
                paper.method_name(method),
                method,
                f'{counted:,}',
                f'{counted / 1e6:.3f}',
                printed.parameters,
                REMARKS.get(method, ''),
            )
        )
    head = ('method', 'preset', 'parameters', 'M', 'paper', 'remark')
    return tables.text(head, body, left=('method', 'preset', 'remark'))
