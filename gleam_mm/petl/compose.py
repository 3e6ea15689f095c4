"""Several methods on one backbone."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from gleam_mm.checkpoint.packing import without_scales
from gleam_mm.petl.attachments import Attachments
from gleam_mm.petl.base import PETLMethod, TrainedAdapter
from gleam_mm.petl.building import build_method, kind_of
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
        frozen: Names of those that are not trained, such as those that
            ``model.adapters=dict(name='adapter.safetensors')`` loads.

    Raises:
        TypeError: ``methods`` is no collection of them.
        ValueError: It is empty, a name has a dot or is taken by PyTorch, a type is unknown, or
            there is no method of a name in ``frozen``.

    Examples:
        >>> Compose(dict(lora=dict(type='LoRA'), prompts=dict(type='VPT', num_prompts=10)))
    """

    elsewhere = dict.fromkeys(('sites', 'blocks'), 'each of its methods has its own')

    def __init__(
        self,
        methods: Mapping[str, dict | PETLMethod] | Sequence[dict | PETLMethod],
        frozen: Sequence[str] | None = None,
    ) -> None:
        super().__init__(sites=())
        methods = named(methods)
        if not methods:
            raise ValueError('methods of Compose: give at least one')
        for name, method in methods.items():
            if not isinstance(name, str) or not name or hasattr(self.local, name):
                raise ValueError(
                    f'methods of Compose: {name!r} is no name, or one of PyTorch; choose another'
                )
            if '.' in name:
                raise ValueError(f'methods of Compose: the name {name!r} has a dot; leave it out')
            self.local[name] = build_method(method)
        self.frozen = tuple(frozen or ())
        for name in self.frozen:
            self.part(name)._frozen = True

    def part(self, name: str) -> PETLMethod:
        """One of the methods.

        Raises:
            ValueError: There is none of this name.
        """
        if name not in self.parts:
            raise ValueError(f'{self.title} has no method {name!r}; it has {", ".join(self.parts)}')
        return self.parts[name]

    def take(self, adapters: Mapping[str, TrainedAdapter]) -> None:
        """Loads trained adapters into the methods of their names.

        Raises:
            RuntimeError: One does not fit.
            ValueError: There is no method of a name.
        """
        for name, adapter in adapters.items():
            part = self.part(name)
            part.load_state_dict(without_scales(adapter.tensors, part.state_dict()))

    def own_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The parameters that the methods add and train, by name, without those of frozen ones."""
        frozen = tuple(f'local.{name}.' for name in self.frozen)
        for name, parameter in super().own_parameters():
            if not name.startswith(frozen):
                yield name, parameter

    def _prepare(self, attachments: Attachments) -> None:
        super()._prepare(attachments)
        for name in self.frozen:
            part = self.part(name)
            part.requires_grad_(False)
            if any(True for member in part.members() for _ in member.adopted_parameters()):
                raise ValueError(
                    f'{part.title} trains parameters of the backbone itself, of which there is one '
                    'set: it cannot be frozen'
                )


def named(
    methods: Mapping[str, Any] | Sequence[Any],
) -> dict[str, Any]:
    """Names methods as :class:`Compose` does.

    Args:
        methods: Configs or methods by name, which stay, or a list of them.

    Raises:
        TypeError: One is neither a config nor a method.
        ValueError: A config has no type.
    """
    if isinstance(methods, Mapping):
        return dict(methods)
    found: dict[str, Any] = {}
    for method in methods:
        if not isinstance(method, dict | PETLMethod):
            raise TypeError(f'methods of Compose: {method!r} is neither a config nor a method')
        kind = kind_of(method) if isinstance(method, dict) else type(method).__name__
        name = str(kind).rpartition('.')[2].lower()
        same = sum(other.rstrip('0123456789') == name for other in found)
        found[f'{name}{same + 1}' if same else name] = method
    return found
