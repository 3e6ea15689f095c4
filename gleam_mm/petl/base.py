"""The contract of a PETL method: it owns every parameter that it adds, and enters by hooks."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gleam_mm.petl.layouts import Layout, Site, find_layout

LINEAR_ROLES = ('qkv', 'proj', 'fc1', 'fc2')


def check_rank(rank: int) -> int:
    """Returns a valid rank.

    Raises:
        ValueError: ``rank`` is no whole number of at least 1.
    """
    if not isinstance(rank, int) or rank < 1:
        raise ValueError(f'rank={rank!r}: choose a whole number of at least 1')
    return rank


class PETLMethod(BaseModule):
    """A parameter-efficient transfer learning method.

    :meth:`attach` plugs the method into a backbone through PyTorch's forward hooks. The backbone's
    module tree and state-dict keys stay as they were, and :meth:`detach` gives the original model
    back bit for bit. Hooks are partials of bound methods, so ``copy.deepcopy`` and ``pickle`` of
    backbone and method together give an independent pair. The output of an adapted module may be
    changed in place: a hook of yours that needs it unadapted has to copy it.

    A subclass declares its parameters in :meth:`build` and applies them in :meth:`adapt`; one that
    trains parameters of the backbone itself names them in :meth:`adopted_parameters`.

    Args:
        sites: The roles of the sites to adapt, such as ``('qkv', 'proj', 'fc1', 'fc2')``.

    Attributes:
        shared (nn.ModuleDict): Parameters that several sites share.
        local (nn.ModuleDict): Parameters of single sites, keyed by :attr:`Site.key`.
    """

    def __init__(self, sites: Sequence[str] = LINEAR_ROLES) -> None:
        super().__init__()
        if isinstance(sites, str):
            raise TypeError(f"`sites` takes a list of roles, such as ['{sites}'], not {sites!r}")
        self.roles = tuple(sites)
        self.shared = nn.ModuleDict()
        self.local = nn.ModuleDict()
        self._layout: Layout | None = None
        self._built = False
        self._handles: list[RemovableHandle] = []

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
        self._layout = layout
        self._handles = [*self.track(), *(self.hook(site) for site in sites)]

    def detach(self) -> None:
        """Unplugs the method, which keeps its parameters; the backbone is the original again."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._layout = None

    def hook(self, site: Site) -> RemovableHandle:
        """Hooks one site. Override it to act on the input of a module instead of its output."""
        return site.module.register_forward_hook(partial(self._adapt, site))

    def track(self) -> list[RemovableHandle]:
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

    def _adapt(self, site: Site, module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        return self.adapt(site, args[0], output)
