"""The methods on one backbone: how they act together, and what merging replaces."""

import sys
import warnings
from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gleam_mm.layouts import PassState, Site, dequantized, find_layout, within_backward
from gleam_mm.petl.recomputing import lower, note

_KEY = '_petl_attachments'  # the attribute of a backbone, which is gone when all methods are

COMPUTATION, OUTPUT, INPUT = range(3)
"""Where a method acts at a module, from the inside outwards."""


class MergeError(RuntimeError):
    """A method cannot be folded into the backbone's weights so that the outputs stay the same."""


class Member(Protocol):
    """What a :class:`~gleam_mm.petl.PETLMethod` is asked here."""

    obstacle: ClassVar[str]
    outermost: ClassVar[bool]
    projects_input: ClassVar[bool]
    recompute: bool
    sites: dict[str, Site]
    title: str
    training: bool

    def members(self) -> Iterator['Member']: ...
    def layer(self) -> int: ...
    def folds(self) -> bool: ...
    def plug(self) -> None: ...
    def unplug(self) -> None: ...
    def begin(self) -> None: ...
    def prepare(self) -> None: ...
    def end(self, output: Any) -> Any: ...
    def train(self, mode: bool) -> Any: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...
    def require_places(self) -> None: ...
    def check_constants(self) -> None: ...
    def refusal(self, reason: str) -> MergeError: ...
    def fold(
        self, site: Site, weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor | None]: ...


class _Pass(PassState):
    """Whether the backbone itself is being called, and not a part of it alone."""

    def __init__(self) -> None:
        self.whole = False


class Attachments:
    """The methods that are attached to one backbone, in their order.

    It frames every pass of the backbone: the grid is followed, methods take the backbone's mode,
    training or evaluation, and it is noted how what they read can be made again. A pass of parts,
    such as timm's ``forward_features``, begins at the layout's entrance, and has no end. While
    methods are merged, it keeps the original weights.

    Where several methods act at one module, those that compute in its place are innermost, then
    come those that adapt its output, in their order, then those that adapt its input, the last one
    first. Merging must go from the inside outwards.

    Args:
        backbone: The backbone.

    Raises:
        ValueError: No layout supports the backbone.
    """

    def __init__(self, backbone: nn.Module) -> None:
        self.layout = find_layout(backbone)
        self._methods: list[Member] = []
        self._merged: list[Member] = []
        self._active: list[Member] = []
        self._originals: dict[tuple[Any, str], nn.Parameter] = {}
        self._notes: list[RemovableHandle] = []
        self._pass = _Pass()
        self._compiled = False
        self._handles = [
            backbone.register_forward_pre_hook(self._begin),
            self.layout.entrance().register_forward_pre_hook(self._begin_parts),
            *self.layout.track_grid(),
            # Of a pass that fails as well: what it had prepared would serve the next one.
            backbone.register_forward_hook(self._end, always_call=True),
        ]

    @classmethod
    def of(cls, backbone: nn.Module) -> 'Attachments':
        """The attachments of a backbone, kept with it for as long as there are any.

        Raises:
            ValueError: No layout supports the backbone.
        """
        if _KEY not in vars(backbone):
            setattr(backbone, _KEY, cls(backbone))
        return vars(backbone)[_KEY]

    @property
    def occupied(self) -> bool:
        """Whether a method is attached."""
        return bool(self._methods)

    def add(self, method: Member) -> None:
        """Plugs a method in, behind those that are there, and warns if there are any.

        Raises:
            RuntimeError: Two methods compute in the place of one module.
        """
        others = ' and '.join(other.title for other in self._methods)
        self._methods.append(method)
        self._plug()
        if others:
            warnings.warn(
                f'{method.title} is attached to a backbone that has {others} already, and all of '
                'them act: detach() what you do not want, or attach a Compose of what you do',
                stacklevel=3,  # where attach() is called
            )

    def remove(self, method: Member) -> None:
        """Unplugs a method; the backbone is the original again when it was the last one."""
        for member in method.members():
            member.unplug()
        self._methods = [other for other in self._methods if other is not method]
        if self._methods:
            self._plug()
            return
        self._forget_notes()
        self._forget_compiled()
        for handle in self._handles:
            handle.remove()
        vars(self.layout.backbone).pop(_KEY, None)

    def is_merged(self, method: Member) -> bool:
        """Whether the backbone's weights hold a method, or the one that it is a part of."""
        return any(member is method for whole in self._merged for member in whole.members())

    def merge(self, method: Member) -> None:
        """Folds a method into the backbone's weights.

        Raises:
            MergeError: It cannot be folded; nothing was changed.
        """
        self.require_whole(method)
        self._become([*self._merged, method])

    def unmerge(self, method: Member) -> None:
        """Takes a method out of the backbone's weights, bit for bit, and plugs it in again.

        Raises:
            MergeError: Another method is merged around it; nothing was changed.
        """
        self.require_whole(method)
        self._become([other for other in self._merged if other is not method])

    def require_whole(self, method: Member) -> None:
        """Refuses what is a part of another method.

        Raises:
            RuntimeError: It is.
        """
        for whole in self._methods:
            if whole is not method and any(member is method for member in whole.members()):
                raise RuntimeError(
                    f'{method.title} is a part of {whole.title}, with which it is attached and '
                    'merged: call that'
                )

    @torch.no_grad()
    def _become(self, merged: list[Member]) -> None:
        """Makes exactly these methods the merged ones."""
        self._move_originals()
        # All of it before anything is written: a refusal leaves the backbone as it was.
        folded = self._fold(merged)
        for (module, name), original in self._originals.items():
            module._parameters[name] = original
        self._originals = {}
        for (module, name), value in folded.items():
            own = module._parameters[name]
            self._originals[module, name] = own
            module._parameters[name] = nn.Parameter(value, requires_grad=own.requires_grad)
        self._merged = merged
        self._plug()

    def _move_originals(self) -> None:
        """Takes the original weights to where the backbone has been moved since, as modules go."""
        for (module, name), original in self._originals.items():
            now = module._parameters[name]
            dtype = now.dtype if original.is_floating_point() else original.dtype
            if (original.device, original.dtype) == (now.device, dtype):
                continue
            moved: Tensor = original.to(now.device, dtype)
            if dequantized(original) is original:
                original.data = moved  # an optimizer that has the parameter still has it
            else:
                if not isinstance(moved, nn.Parameter):
                    moved = nn.Parameter(moved, requires_grad=False)
                self._originals[module, name] = moved

    def _fold(self, merged: Sequence[Member]) -> dict[tuple[Any, str], Tensor]:
        """What these methods make of the backbone's original weights."""
        for whole in merged:
            for member in whole.members():
                if member.sites and not member.folds():
                    raise member.refusal(member.obstacle)
        folded: dict[tuple[Any, str], Tensor] = {}
        for module, acting in self._by_module().items():
            inside = [(member, site) for whole, member, site in acting if whole in merged]
            if not inside:
                continue
            self._require_innermost(acting, merged)
            weight = self._originals.get((module, 'weight'), module.weight)
            bias = self._originals.get((module, 'bias'), getattr(module, 'bias', None))
            new = dequantized(weight), bias
            for member, site in inside:
                new = _fold_rows(member, site, *new)
                if new[1] is not None and bias is None:
                    raise member.refusal(
                        f'{site.name!r} has no bias that could take the shift; build the backbone '
                        'with one (qkv_bias=True)'
                    )
            for name, value, own in (('weight', new[0], weight), ('bias', new[1], bias)):
                if value is None or value is own:
                    continue
                if name not in module._parameters:
                    raise inside[0][0].refusal(
                        f'the {name} of {inside[0][1].name!r} is computed by a parametrization '
                        '(weight norm, pruning or the like), which would undo it; remove that first'
                    )
                folded[module, name] = value
        return folded

    def _by_module(self) -> dict[Any, list[tuple[Member, Member, Site]]]:
        """Module -> what acts there, from the inside outwards: method, its member, and the site."""
        acting: dict[Any, list[tuple[Member, Member, Site]]] = {}
        for whole in self._methods:
            for member in whole.members():
                for site in member.sites.values():
                    module = site.module if site.affine is None else site.affine
                    acting.setdefault(module, []).append((whole, member, site))
        for there in acting.values():
            inputs = [entry for entry in there if entry[1].layer() == INPUT]
            there[:] = sorted(there, key=lambda entry: entry[1].layer())
            there[len(there) - len(inputs) :] = reversed(inputs)
        return acting

    def _require_innermost(
        self, acting: Sequence[tuple[Member, Member, Site]], merged: Sequence[Member]
    ) -> None:
        """Refuses to have a method merged around one that is not."""
        unmerged = None
        for whole, member, site in acting:
            if whole not in merged:
                unmerged = member
            elif unmerged is not None:
                raise MergeError(
                    f'{member.title} cannot be merged while {unmerged.title} is not, which acts '
                    f'inside of it at {site.name!r}: merge that first, and unmerge it last'
                )
            elif site.affine is None:
                raise member.refusal(member.obstacle)

    def _plug(self) -> None:
        """Sets the hooks of all methods anew, in their order and those that enclose others last."""
        for method in self._methods:
            for member in method.members():
                member.unplug()
        self._forget_notes()
        self._forget_compiled()
        self._active = [
            member
            for method in self._methods
            if method not in self._merged
            for member in method.members()
        ]
        # Methods change outputs: what these come from is noted before.
        if any(member.recompute for member in self._active):
            self._notes = [
                # Before whatever hooks a user has there, which may change the output.
                module.register_forward_hook(note, with_kwargs=True, prepend=True)
                for module in self.layout.recomputable()
            ]
        for member in sorted(self._active, key=lambda member: member.outermost):
            member.plug()
        # Behind what changes the input.
        self._notes += [
            module.register_forward_pre_hook(lower)
            for module in dict.fromkeys(
                site.module
                for member in self._active
                if member.projects_input
                for site in member.sites.values()
                if isinstance(site.module, nn.Linear)
            )
        ]

    def _forget_notes(self) -> None:
        for handle in self._notes:
            handle.remove()
        self._notes = []

    def _forget_compiled(self) -> None:
        """Lets a compiler look at hooks again, which it takes for unchanged.

        A part that is compiled by itself, such as a block, may not have been asked yet.
        """
        if self._compiled or _has_compiled(self.layout.backbone):
            torch.compiler.reset()
            self._compiled = False

    def _begin(self, backbone: nn.Module, args: tuple) -> None:
        if torch.compiler.is_compiling():  # not read here: a compiler would look at it in each pass
            self._compiled = True
        self._pass.whole = True
        self._begin_members()
        for member in self._active:
            member.prepare()

    def _begin_parts(self, module: nn.Module, args: tuple) -> None:
        if torch.compiler.is_compiling():  # perhaps of `forward_features` alone
            self._compiled = True
        # Where it is computed again for its gradient, no pass begins.
        elif not (self._pass.whole or within_backward()):
            self._begin_members()

    def _begin_members(self) -> None:
        self.layout.begin()
        training = self.layout.backbone.training
        for member in self._active:
            if member.training != training:
                member.train(training)
            member.require_places()
            member.check_constants()
            member.begin()

    def _end(self, backbone: nn.Module, args: tuple, output: Any) -> Any:
        self._pass.whole = False
        for member in reversed(self._active):
            output = member.end(output)
        return output


def _has_compiled(backbone: nn.Module) -> bool:
    """Whether a module of a backbone is compiled, in its place or in a wrapper there."""
    if 'torch._dynamo' not in sys.modules:  # whose import takes seconds
        return False
    return any(
        module._compiled_call_impl is not None or '_orig_mod' in module._modules
        for module in backbone.modules()
    )


def _fold_rows(
    member: Member, site: Site, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """What a method makes of a weight and bias of which a site may be some rows alone."""
    if site.rows is None:
        return _fold_precisely(member, site, weight, bias)
    start, stop = site.rows.start, site.rows.stop
    part = weight[start:stop], None if bias is None else bias[start:stop]
    rows, own = _fold_precisely(member, site, *part)
    weight = weight.slice_scatter(rows, 0, start, stop)
    if bias is not None and own is not None:
        return weight, bias.slice_scatter(own, 0, start, stop)
    return weight, bias if own is None else own


def _fold_precisely(
    member: Member, site: Site, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """What a method makes of them in its own precision where that is higher, in theirs."""
    own = (parameter.dtype for parameter in member.parameters() if parameter.is_floating_point())
    dtype = reduce(torch.promote_types, own, weight.dtype)
    new, shift = member.fold(site, weight.to(dtype), None if bias is None else bias.to(dtype))
    stored = weight.dtype if bias is None else bias.dtype
    return new.to(weight.dtype), None if shift is None else shift.to(stored)
