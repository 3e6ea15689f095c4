"""Several methods on one backbone."""

from collections.abc import Mapping, Sequence
from typing import Any

from gleam_mm.petl.base import PETLMethod
from gleam_mm.registry import MODELS


@MODELS.register_module()
class Compose(PETLMethod):
    """Several methods as one: attached, trained, saved, merged and detached together.

    At a module where several of them act, what computes in its place is innermost, then outputs are
    adapted in the order of the methods; inputs are adapted in their order, too. A part's name
    stands in the names of its parameters, ``petl.local.<name>.``, so that it can have a learning
    rate and a weight decay of its own::

        optim_wrapper = dict(paramwise_cfg=dict(custom_keys={
            'petl.local.prompts': dict(lr_mult=10, decay_mult=0),
        }))

    Args:
        methods: Configs of methods, or methods, by name; or a list of them, whose names are then
            their classes' in lower case, with a number behind the second of a kind.

    Raises:
        TypeError: ``methods`` is no collection of them.
        ValueError: It is empty, or a name has a dot.

    Examples:
        >>> Compose(dict(lora=dict(type='LoRA'), prompts=dict(type='VPT', num_prompts=10)))
    """

    def __init__(
        self, methods: Mapping[str, dict | PETLMethod] | Sequence[dict | PETLMethod]
    ) -> None:
        super().__init__(sites=())
        methods = named(methods)
        if not methods:
            raise ValueError('methods of Compose: give at least one')
        for name, method in methods.items():
            if '.' in name:
                raise ValueError(f'methods of Compose: the name {name!r} has a dot; leave it out')
            built = method if isinstance(method, PETLMethod) else MODELS.build(method)
            if not isinstance(built, PETLMethod):
                raise TypeError(
                    f'methods of Compose: {name!r} is a {type(built).__name__}, no PETL method'
                )
            self.local[name] = built


def named(
    methods: Mapping[str, Any] | Sequence[Any],
) -> dict[str, Any]:
    """Names methods as :class:`Compose` does.

    Args:
        methods: Configs or methods by name, which stay, or a list of them.

    Raises:
        TypeError: One is neither a config nor a method.
    """
    if isinstance(methods, Mapping):
        return dict(methods)
    found: dict[str, Any] = {}
    for method in methods:
        if not isinstance(method, dict | PETLMethod):
            raise TypeError(f'methods of Compose: {method!r} is neither a config nor a method')
        kind = method['type'] if isinstance(method, dict) else type(method).__name__
        name = str(kind).rpartition('.')[2].lower()
        same = sum(other.rstrip('0123456789') == name for other in found)
        found[f'{name}{same + 1}' if same else name] = method
    return found
