"""The contract of a PETL method: it owns every parameter that it adds, and enters by hooks."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import ClassVar, Protocol

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from gleam_mm.petl.layouts import Layout, Site, find_layout

LINEAR_ROLES = ('qkv', 'proj', 'fc1', 'fc2')


class MergeError(RuntimeError):
    """A method cannot be folded into the backbone's weights so that the outputs stay the same."""


class Handle(Protocol):
    """What undoes one hook, such as PyTorch's ``RemovableHandle``."""

    def remove(self) -> None:
        """Undoes the hook."""


class ForwardReplacement:
    """Replaces the forward method of one module until :meth:`remove` is called.

    For a method that must act *inside* a module, where hooks on its input and output do not reach.
    The module stays in its place with its class, its parameters and its hooks.

    Args:
        module: The module.
        forward: What to call instead of its ``forward``: a bound method or a partial of one, which
            ``copy.deepcopy`` and ``pickle`` take along.

    Raises:
        RuntimeError: The forward method of the module is replaced already.
    """

    def __init__(self, module: nn.Module, forward: Callable[..., object]) -> None:
        if 'forward' in vars(module):
            raise RuntimeError(f'the forward of this {type(module).__name__} is replaced already')
        self._module = module
        module.forward = forward

    def remove(self) -> None:
        """Gives the module its own forward method back."""
        vars(self._module).pop('forward', None)


def check_rank(rank: int, name: str = 'rank') -> int:
    """Returns a valid inner width, which the argument ``name`` gave.

    Raises:
        ValueError: It is no whole number of at least 1.
    """
    if not isinstance(rank, int) or rank < 1:
        raise ValueError(f'{name}={rank!r}: choose a whole number of at least 1')
    return rank


class PETLMethod(BaseModule):
    """A parameter-efficient transfer learning method.

    :meth:`attach` plugs the method into a backbone through PyTorch's forward hooks. The backbone's
    module tree and state-dict keys stay as they were, and :meth:`detach` gives the original model
    back bit for bit. Hooks are partials of bound methods, so ``copy.deepcopy`` and ``pickle`` of
    backbone and method together give an independent pair. The output of an adapted module may be
    changed in place: a hook of yours that needs it unadapted has to copy it.

    A subclass declares its parameters in :meth:`build` and applies them in :meth:`adapt`; one that
    trains parameters of the backbone itself names them in :meth:`adopted_parameters`; one whose
    updates are linear tells in :meth:`fold` what they make of a weight, or else in
    :attr:`obstacle` why that cannot be.

    Args:
        sites: The roles of the sites to adapt, such as ``('qkv', 'proj', 'fc1', 'fc2')``.

    Attributes:
        shared (nn.ModuleDict): Parameters that several sites share.
        local (nn.ModuleDict): Parameters of single sites, keyed by :attr:`Site.key`.
    """

    obstacle: ClassVar[str] = 'it does not tell how its update folds into a weight'
    """Why the method cannot be merged, for the methods that have no :meth:`fold`."""

    def __init__(self, sites: Sequence[str] = LINEAR_ROLES) -> None:
        super().__init__()
        if isinstance(sites, str):
            raise TypeError(f"`sites` takes a list of roles, such as ['{sites}'], not {sites!r}")
        self.roles = tuple(sites)
        self.shared = nn.ModuleDict()
        self.local = nn.ModuleDict()
        self._layout: Layout | None = None
        self._sites: list[Site] = []
        self._built = False
        self._handles: list[Handle] = []
        self._originals: dict[nn.Parameter, Tensor] = {}
        self._merged = False

    def build(self, sites: list[Site]) -> None:
        """Creates the parameters for the given sites, in :attr:`shared` and :attr:`local`."""

    def adapt(self, site: Site, x: Tensor, y: Tensor) -> Tensor:
        """Adapts the output of a site. Without an override the output stays as it is.

        Args:
            site: The site.
            x: The input of the site's module.
            y: The frozen module's output for ``x``.

        Returns:
            The adapted output, shaped like ``y``.
        """
        return y

    def fold(self, site: Site, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Folds the method into the weights of one site, without changing them in place.

        Args:
            site: The site.
            weight: The weight of :attr:`Site.affine`.
            bias: Its bias, or None if it has none.

        Returns:
            The weight and the bias with which the frozen module alone gives the adapted output.

        Raises:
            MergeError: The method's update is not of this form.
        """
        raise self._refusal()

    @property
    def layout(self) -> Layout:
        """The layout of the backbone that the method is attached to.

        Raises:
            RuntimeError: The method is not attached.
        """
        if self._layout is None:
            raise RuntimeError(f'{type(self).__name__} is not attached to a backbone')
        return self._layout

    @property
    def attached(self) -> bool:
        """Whether the method is attached to a backbone."""
        return self._layout is not None

    def attach(self, backbone: nn.Module) -> None:
        """Plugs the method into a backbone; the first time, creates its parameters.

        Args:
            backbone: A backbone that one of the registered layouts supports.

        Raises:
            RuntimeError: The method is attached already.
            ValueError: No layout supports the backbone, or it lacks one of the roles.
        """
        if self.attached:
            raise RuntimeError(
                f'{type(self).__name__} is attached already; call detach() before attaching again'
            )
        layout = find_layout(backbone)
        sites = layout.sites(self.roles)
        if not self._built:
            self.build(sites)
            self._built = True
        self._layout, self._sites = layout, sites
        self._plug()

    def detach(self) -> None:
        """Unplugs the method, which keeps its parameters; the backbone is the original again."""
        if self.merged:
            self.unmerge()
        self._unplug()
        self._layout, self._sites = None, []

    @property
    def merged(self) -> bool:
        """Whether the backbone's weights hold the method, and its hooks rest."""
        return self._merged

    @torch.no_grad()
    def merge(self) -> None:
        """Folds the method into the backbone's weights, which then give the adapted outputs alone.

        The outputs are those of evaluation mode, without the method's own dropout. The original
        weights are kept aside for :meth:`unmerge`.

        Raises:
            RuntimeError: The method is not attached, or is merged already.
            MergeError: It cannot be folded; nothing was changed.
        """
        if not self.attached:
            raise RuntimeError(f'{type(self).__name__} is not attached to a backbone')
        if self.merged:
            raise RuntimeError(f'{type(self).__name__} is merged already; call unmerge() first')
        # All of it before anything is written: a refusal leaves the backbone as it was.
        folded: dict[nn.Parameter, Tensor] = {}
        for site in self._sites:
            if (affine := site.affine) is None:
                raise self._refusal()
            weight, bias = self.fold(site, affine.weight, affine.bias)
            folded[affine.weight] = weight
            if bias is not None and affine.bias is None:
                raise MergeError(
                    f'{type(self).__name__} cannot be merged: {site.name!r} has no bias that could '
                    'take the shift; build the backbone with one (qkv_bias=True)'
                )
            if bias is not None:
                folded[affine.bias] = bias
        self._unplug()
        for parameter, value in folded.items():
            self._originals[parameter] = parameter.detach().clone()
            parameter.copy_(value)
        self._merged = True

    @torch.no_grad()
    def unmerge(self) -> None:
        """Gives the backbone its own weights back, bit for bit, and plugs the method in again.

        Raises:
            RuntimeError: The method is not merged.
        """
        if not self.merged:
            raise RuntimeError(f'{type(self).__name__} is not merged')
        for parameter, original in self._originals.items():
            parameter.copy_(original)
        self._originals = {}
        self._merged = False
        self._plug()

    def hook(self, site: Site) -> Handle:
        """Hooks one site. Override it to act on the input of a module instead of its output."""
        return site.module.register_forward_hook(partial(self._adapt, site))

    def track(self) -> list[Handle]:
        """Hooks for what a method must know at run time, such as the grid. None by default."""
        return []

    def adopted_parameters(self) -> Iterable[tuple[str, nn.Parameter]]:
        """Parameters of the backbone itself that the method trains, by name. None by default."""
        return ()

    def trainable_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Everything that the method trains.

        Yields:
            Names and parameters: the method's own as ``named_parameters`` gives them, the
            backbone's with ``backbone.`` in front.
        """
        yield from self.named_parameters()
        for name, parameter in self.adopted_parameters():
            yield f'backbone.{name}', parameter

    def _refusal(self) -> MergeError:
        return MergeError(f'{type(self).__name__} cannot be merged: {self.obstacle}')

    def _plug(self) -> None:
        self._handles = [*self.track(), *(self.hook(site) for site in self._sites)]

    def _unplug(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _adapt(self, site: Site, module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        return self.adapt(site, args[0], output)
