"""The contract of a PETL method: it owns every parameter that it adds, and enters by hooks."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from gleam_mm.arguments import Checked
from gleam_mm.layouts import LINEAR_ROLES, ForwardReplacement, Handle, Layout, Site
from gleam_mm.messages import listed
from gleam_mm.petl.attachments import COMPUTATION, INPUT, OUTPUT, Attachments, MergeError
from gleam_mm.petl.constants import Folding
from gleam_mm.petl.places import Places
from gleam_mm.petl.probe import Sum
from gleam_mm.petl.probe import probe as prove
from gleam_mm.petl.recomputing import recomputing

LossOfBatch = Callable[[], Tensor]
"""Runs the model over one batch of training data and returns its loss."""


class TrainedAdapter(NamedTuple):
    """A trained method, out of a file.

    Attributes:
        config: The config of the method.
        tensors: Its state, by the names that it has in the method itself.
    """

    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


class PETLMethod(Checked, BaseModule):
    """A parameter-efficient transfer learning method.

    :meth:`attach` plugs the method into a backbone through PyTorch's forward hooks. The backbone's
    module tree and state-dict keys stay as they were, and :meth:`detach` gives the original model
    back bit for bit. Hooks are partials of bound methods, so ``copy.deepcopy`` and ``pickle`` of
    backbone and method together give an independent pair. The output of an adapted module may be
    changed in place: a hook of yours that needs it unadapted has to copy it.

    A subclass declares its parameters in :meth:`build` and says what they do to a site: to what its
    module reads (:meth:`before`), to what it gives (:meth:`adapt`), or to how it computes
    (:meth:`compute`). What it does not override is not hooked. :meth:`begin` and :meth:`end` frame
    a pass of the whole backbone; what belongs to a pass is kept in a
    :class:`~gleam_mm.layouts.PassState`, for several threads may call one model. A method that
    trains parameters of the backbone itself names them in :meth:`adopted_parameters`; one that is
    linear tells in :meth:`fold` what it makes of a weight, or else in :attr:`obstacle` why that
    cannot be. :meth:`sums` names what it adds up token by token, which not every backbone has
    alike. :meth:`losses` and :meth:`calibrate` are for methods that need more than the task's loss,
    or a look at training data first.

    Arguments are checked by the annotations of ``__init__``, see :mod:`gleam_mm.arguments`; what a
    subclass checks itself is how they fit each other.

    Methods in :attr:`local` are parts of this one: built, attached, merged and saved with it, in
    their order.

    Args:
        sites: The roles of the sites to adapt, such as ``('qkv', 'proj', 'fc1', 'fc2')``, with
            ``'q'``, ``'k'`` and ``'v'`` for a part of ``qkv``; or names of single sites, with ``*``
            for anything: see :meth:`gleam_mm.layouts.Layout.sites`.
        blocks: Indices of the transformer blocks to adapt, from the end where negative; by default
            all of them, and what is outside of blocks.

    Attributes:
        shared (nn.ModuleDict): Parameters that several sites share.
        local (nn.ModuleDict): Parameters of single sites, keyed by :attr:`Site.key`.
        sites (dict[str, Site]): The sites of the backbone that the method is attached to, by key.
        recompute (bool): Whether what the method reads is computed again for its gradients where it
            can be, see :meth:`attach`.

    Raises:
        ArgumentError: An argument is not what its annotation asks for, such as a text for
            ``sites``.
        ValueError: ``blocks`` is empty, or names one twice.
    """

    obstacle: ClassVar[str] = 'it does not tell how its update folds into a weight'
    """Why the method cannot be merged, for the methods that have no :meth:`fold`."""

    at_affine: ClassVar[bool] = False
    """Whether the method acts on :attr:`Site.affine` instead of the site's whole module."""

    acts_at: ClassVar[Mapping[str, Collection[str]]] = {}
    """``'before'``, ``'compute'`` or ``'adapt'`` -> the roles where it acts, if not all of them."""

    counts_weights: ClassVar[Collection[str]] = ()
    """Arguments that are numbers of weights that there are, so that they make nothing larger."""

    counters: ClassVar[Collection[str]] = ()
    """Buffers that count training steps: of several files the largest number goes on, no mean."""

    projects_input: ClassVar[bool] = False
    """Whether all that ``adapt`` does with the input of a Linear is to multiply it by matrices, so
    that under autocast it can have the copy that the Linear itself reads."""

    outermost: ClassVar[bool] = False
    """Whether the method encloses others at its sites: its ``before`` comes first and its ``adapt``
    last, as they must for one that changes the number of tokens."""

    def __init__(
        self, sites: Sequence[str] = LINEAR_ROLES, blocks: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        if blocks is not None and not 0 < len(blocks) == len(set(blocks)):
            raise ValueError(
                f'{type(self).__name__}: blocks={list(blocks)}: name at least one, and none twice; '
                'None stands for all'
            )
        self.roles = tuple(sites)
        self.blocks = None if blocks is None else tuple(blocks)
        # Only the method knows the classes of what it puts there, and a type checker does not.
        self.shared: Any = nn.ModuleDict()
        self.local: Any = nn.ModuleDict()
        self.sites: dict[str, Site] = {}
        self.recompute = True
        self._folding: Folding | None = None
        self._attachments: Attachments | None = None
        self._places: Places | None = None
        self._place = ''  # in the method that this one is a part of
        self._built = False
        self._frozen = False  # it was trained before, and is not any more
        self._called = False  # the method that it is a part of calls its adapt
        self._handles: list[Handle] = []

    # What a method says.

    @property
    def reads_grid(self) -> bool:
        """Whether the method needs to know the grid of the tokens at its sites."""
        return False

    def sums(self) -> Iterable[Sum]:
        """What the method adds up token by token, and so has to be alike. Nothing by default.

        Returns:
            For each sum, sites with ``'input'`` or ``'output'``: what their modules read or give.
        """
        return ()

    def select(self, layout: Layout) -> list[Site]:
        """The sites to adapt: by default those of the given roles in the given blocks."""
        return layout.sites(self.roles, self.blocks)

    def build(self, sites: list[Site]) -> None:
        """Creates the parameters for the given sites, in :attr:`shared` and :attr:`local`."""

    def before(self, site: Site, x: Tensor) -> Tensor:
        """Adapts the input of a site. Without an override it stays as it is.

        Args:
            site: The site.
            x: The input of the site's module.

        Returns:
            What the module reads instead.
        """
        return x

    def compute(self, site: Site, *args: Any, **kwargs: Any) -> Tensor:
        """Takes the place of the forward method of a site's module, if overridden."""
        raise NotImplementedError

    def adapt(self, site: Site, x: Tensor, y: Tensor) -> Tensor:
        """Adapts the output of a site. Without an override it stays as it is.

        Args:
            site: The site.
            x: The input of the site's module.
            y: The frozen module's output for ``x``.

        Returns:
            The adapted output, shaped like ``y``.
        """
        return y

    def begin(self) -> None:
        """A pass begins: of the backbone, or of parts of it that begin with the first one."""

    def prepare(self) -> None:
        """It is one of the backbone itself, which :meth:`end` will end."""

    def end(self, output: Any) -> Any:
        """Adapts what the backbone returns: None, where it failed."""
        return output

    def fold(self, site: Site, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Folds the method into the weights of one site, without changing them in place.

        Args:
            site: The site.
            weight: The weight of :attr:`Site.affine`, in floating point.
            bias: Its bias, or None if it has none.

        Returns:
            The weight and the bias with which the frozen module alone gives the adapted output.

        Raises:
            MergeError: The method's update is not of this form.
        """
        raise self.refusal(self.obstacle)

    def adopted_parameters(self) -> Iterable[tuple[str, nn.Parameter]]:
        """Parameters of the backbone itself that the method trains, by name. None by default."""
        return ()

    def losses(self) -> dict[str, Tensor]:
        """Losses of the method's own for the pass that has just ended, by name. None by default."""
        return {}

    @property
    def calibrates(self) -> bool:
        """Whether :meth:`calibrate` looks at anything, as it does where a class overrides it."""
        return overrides(self, 'calibrate')

    def calibrate(self, batches: Iterable[LossOfBatch]) -> None:
        """Takes a look at training data before the first step.

        It is called once on one process, whose parameters and buffers the others then get, and not
        again when a training resumes. It may change values, but neither shapes nor which parameters
        there are: the optimizer has them already.

        Args:
            batches: For each of a few batches what computes its loss, with a graph where gradients
                are enabled.
        """

    def take(self, adapters: Mapping[str, TrainedAdapter]) -> None:
        """Takes over what others have learnt, once the method is attached.

        Raises:
            ValueError: The method is not made of others, or they do not fit.
        """
        raise ValueError(
            f'{self.title} takes no trained adapters; Compose, AdapterFusion, Arrow and EigenLoRA '
            'do'
        )

    # What follows from it.

    @property
    def layout(self) -> Layout:
        """The layout of the backbone that the method is attached to.

        Raises:
            RuntimeError: The method is not attached.
        """
        return self._attached().layout

    @property
    def attached(self) -> bool:
        """Whether the method is attached to a backbone."""
        return self._attachments is not None

    @property
    def title(self) -> str:
        """What messages call the method."""
        return type(self).__name__ + self._place

    @property
    def parts(self) -> dict[str, 'PETLMethod']:
        """The methods that this one is made of, by name."""
        return {name: part for name, part in self.local.items() if isinstance(part, PETLMethod)}

    def members(self) -> Iterator['PETLMethod']:
        """This method, its parts, and theirs."""
        yield self
        for part in self.parts.values():
            yield from part.members()

    def attach(self, backbone: nn.Module, probe: bool = False, recompute: bool = True) -> None:
        """Plugs the method into a backbone; the first time, creates its parameters.

        What a method reads behind a norm or an activation of a block is computed again for its
        gradients, to the bit, instead of kept: that is most of the memory that an adapter on every
        Linear costs beside the gradient through the backbone. Where gradient checkpointing or a
        compiler decides what is kept, it is as they say. Under autocast, copies in another
        precision are kept.

        Args:
            backbone: A backbone that one of the registered layouts supports.
            probe: Whether to prove by one small pass that the backbone computes through the sites,
                where it has no method yet; see :func:`~gleam_mm.petl.probe.probe`.
            recompute: Whether to save that memory.

        Raises:
            RuntimeError: The method is attached already, or it and another one on this backbone
                both compute in the place of one module; or the backbone does not compute through a
                site, or does not fit :meth:`sums`. Nothing is left behind.
            ValueError: No layout supports the backbone, or it lacks one of the roles or blocks.
        """
        if self.attached:
            raise RuntimeError(
                f'{type(self).__name__} is attached already; call detach() before attaching again'
            )
        attachments = Attachments.of(backbone)
        for member in self.members():
            member.recompute = recompute
        try:
            self._prepare(attachments)
            if probe and not attachments.occupied:
                on_grid = {
                    site.name
                    for member in self.members()
                    if member.reads_grid
                    for site in member.sites.values()
                    if site.block is not None
                }
                sums = [(member.title, s) for member in self.members() for s in member.sums()]
                prove(attachments.layout, self._touched(), on_grid, sums)
            attachments.add(self)
        except BaseException:
            self._leave(attachments)
            raise

    def detach(self) -> None:
        """Unplugs the method, which keeps its parameters; the backbone is the original again."""
        if self._attachments is None:
            return
        self._attachments.require_whole(self)
        if self.merged:
            self.unmerge()
        self._leave(self._attachments)

    @property
    def merged(self) -> bool:
        """Whether the backbone's weights hold the method, and its hooks rest."""
        return self._attachments is not None and self._attachments.is_merged(self)

    def merge(self) -> None:
        """Folds the method into the backbone's weights, which then give the adapted outputs alone.

        The outputs are those of evaluation mode, without the method's own dropout. A quantised
        weight becomes one in floating point, any other stays in its precision. The original weights
        are kept aside for :meth:`unmerge`.

        Raises:
            RuntimeError: The method is not attached, or is merged already.
            MergeError: It cannot be folded; nothing was changed.
        """
        if self.merged:
            raise RuntimeError(f'{type(self).__name__} is merged already; call unmerge() first')
        self._attached().merge(self)

    def unmerge(self) -> None:
        """Gives the backbone its own weights back, bit for bit, and plugs the method in again.

        They come back on the device and in the precision that the backbone has by then.
        Other methods that are merged stay so, whichever was merged first.

        Raises:
            RuntimeError: The method is not merged.
        """
        if not self.merged:
            raise RuntimeError(f'{type(self).__name__} is not merged')
        self._attached().unmerge(self)

    def trainable_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Everything that the method trains.

        Yields:
            Names and parameters: the method's own as ``named_parameters`` gives them, the
            backbone's with ``backbone.`` in front.
        """
        yield from self.own_parameters()
        adopted: dict[str, nn.Parameter] = {}
        for member in self.members():
            adopted.update(member.adopted_parameters())
        for name, parameter in adopted.items():
            yield f'backbone.{name}', parameter

    def own_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The parameters that the method and its parts add and train, by name."""
        parts = {f'local.{name}.': part for name, part in self.parts.items()}
        for name, parameter in self.named_parameters():
            if not name.startswith(tuple(parts)):
                yield name, parameter
        for prefix, part in parts.items():
            for name, parameter in part.own_parameters():
                yield prefix + name, parameter

    def all_losses(self) -> dict[str, Tensor]:
        """The losses of the method and of its parts, whose names come first."""
        losses = dict(self.losses())
        for name, part in self.parts.items():
            losses.update({f'{name}.{key}': loss for key, loss in part.all_losses().items()})
        return losses

    def layer(self) -> int:
        """Where the method acts at a module: computes in its place, adapts its input or output."""
        if overrides(self, 'compute'):
            return COMPUTATION
        return INPUT if overrides(self, 'before') else OUTPUT

    def folds(self) -> bool:
        """Whether the method tells what it makes of a weight; it may refuse to, even so."""
        return overrides(self, 'fold')

    def linear_of(self, site: Site) -> nn.Linear:
        """The Linear at a site, for methods that adapt nothing else.

        Raises:
            ValueError: The site's module is another one.
        """
        if not isinstance(site.module, nn.Linear):
            raise ValueError(
                f'{type(self).__name__} adapts Linears; {site.name!r} (role {site.role!r}) is '
                f'{site.misfit(LINEAR_ROLES)}'
            )
        return site.module

    def refusal(self, reason: str) -> MergeError:
        """The error that says why the method cannot be merged."""
        return MergeError(f'{self.title} cannot be merged: {reason}')

    def plug(self) -> None:
        """Sets the method's hooks, not those of its parts."""
        for site in self.sites.values():
            module = site.require_affine() if self.at_affine else site.module
            if self._acts('before', site):
                self._handles.append(
                    module.register_forward_pre_hook(
                        partial(self._before, site), prepend=self.outermost
                    )
                )
            if self._acts('compute', site):
                self._handles.append(ForwardReplacement(module, partial(self._compute, site)))
            if self._acts('adapt', site) and not self._called:
                self._handles.append(module.register_forward_hook(partial(self._adapt, site)))

    def train(self, mode: bool = True) -> 'PETLMethod':
        """Sets the mode, as PyTorch does; a frozen method stays in evaluation.

        A method has the mode of its backbone: each pass of that sets it again.
        """
        if mode and self._folding is not None:
            self.fold_constants(False)
        return super().train(mode and not self._frozen)

    def fold_constants(self, on: bool = True) -> None:
        """Computes what depends on parameters alone once, not in each pass: for many evaluations.

        Those are the products of shared and local matrices, GLEAM's kernels at the original
        resolution, rounded weights and the like; passes in training mode or with gradients compute
        them anew all the same. It ends with ``train()``, or ``fold_constants(False)``. Parameters
        may be changed in place, moved or loaded meanwhile, by anything that PyTorch counts as a
        change; what writes through ``parameter.data`` has to call it again. Changes are looked for
        when the backbone itself is called: who calls a part of it, such as ``forward_features`` of
        timm, has to call this again after a change.

        Args:
            on: Whether to begin; or to end.
        """
        if self._folding is not None:
            self._folding.end()
        self._folding = Folding(self) if on else None

    def require_places(self) -> None:
        """A pass begins: refuses to leave the method out in silence.

        Raises:
            RuntimeError: Modules that the method acts at were replaced in the backbone.
        """
        if self._places is None or torch.compiler.is_compiling():
            return
        if lost := self._places.lost():
            raise RuntimeError(
                f'{self.title} acts at modules that are not in the '
                f'{type(self.layout.backbone).__name__} any more, others are in their places: '
                f'{listed(lost, 3)}. Where modules are replaced, as by reparameterize_model or '
                'set_input_size of timm, detach() before and attach() behind, or merge() before'
            )

    def check_constants(self) -> None:
        """A pass begins: forgets constants of parameters that have changed."""
        if self._folding is not None and not self._folding.check():
            self.fold_constants(False)

    def unplug(self) -> None:
        """Removes the method's hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _acts(self, word: str, site: Site) -> bool:
        return overrides(self, word) and site.role in self.acts_at.get(word, (site.role,))

    def _attached(self) -> Attachments:
        if self._attachments is None:
            raise RuntimeError(f'{type(self).__name__} is not attached to a backbone')
        return self._attachments

    def _prepare(self, attachments: Attachments) -> None:
        """Finds the sites of the method and its parts, and builds what is not built yet."""
        self._attachments = attachments
        layout = attachments.layout
        if self.reads_grid and layout.no_grid:
            raise ValueError(
                f'{self.title} needs the grid of the tokens, and those of '
                f'{type(layout.backbone).__name__} form none: {layout.no_grid}'
            )
        sites = self.select(layout)
        if layout.no_blocks and any(site.role == 'block' for site in sites):
            raise ValueError(
                f'{self.title} adapts what whole blocks read or write; those of '
                f'{type(layout.backbone).__name__} cannot be: {layout.no_blocks}'
            )
        for site in sites:
            if site.rows is not None and any(self._acts(w, site) for w in ('before', 'compute')):
                raise ValueError(
                    f'{self.title} acts on all that {site.path!r} reads or computes, not on its '
                    f'{site.role!r} alone: choose qkv, or a method that adds to outputs, as LoRA'
                )
        self.sites = {site.key: site for site in sites}
        if not self._built:
            given = dict(self.local)
            try:
                self.build(sites)
            except BaseException:
                self.shared.clear()
                self.local.clear()
                self.local.update(given)
                raise
            self._built = True
            self.train(self.training)  # what was built is in training mode, whatever this one is in
        self._places = Places(layout.backbone, self._paths(layout))
        for name, part in self.parts.items():
            part._place = f' ({name} of {self.title})'
            part._prepare(attachments)

    def _paths(self, layout: Layout) -> Iterator[str]:
        """The paths of the modules with hooks, of the method and of the layout for it."""
        hooked = set(layout.grid_modules()) if self.reads_grid else set()
        for site in self.sites.values():
            yield site.path
            if self.at_affine:
                hooked.add(site.require_affine())
        for name, module in layout.backbone.named_modules():
            if module in hooked:
                yield name

    def _touched(self) -> Iterator[Site]:
        """Its sites and those of its parts, and those whose own parameters it trains."""
        names = set()
        for member in self.members():
            for site in member.sites.values():
                if site.name not in names:
                    names.add(site.name)
                    yield site
        trained = {name for name, _ in self.trainable_parameters()}
        if all(f'backbone.{name}' in trained for name, _ in self.layout.parameters()):
            return  # all of the backbone, with what it may have and not use
        for site in self.layout.all_sites():
            own = site.module.named_parameters(f'backbone.{site.name}', recurse=False)
            if site.name not in names and any(name in trained for name, _ in own):
                yield site

    def _leave(self, attachments: Attachments) -> None:
        attachments.remove(self)
        for member in self.members():
            member._attachments, member._places, member.sites = None, None, {}

    def _before(self, site: Site, module: nn.Module, args: tuple) -> tuple:
        layout = self.layout
        with self._recomputing(args[0]):
            x = self.before(site, layout.as_tokens(site, args[0]))
        return layout.from_tokens(site, x, args[0]), *args[1:]

    def _compute(self, site: Site, *args: Any, **kwargs: Any) -> Tensor:
        with self._recomputing(*args[:1]):
            return self.compute(site, *args, **kwargs)

    def _adapt(self, site: Site, module: nn.Module, args: tuple, output: Any) -> Any:
        layout = self.layout
        own = output if site.rows is None else output[..., site.rows]
        y = layout.as_tokens(site, own)
        with self._recomputing(args[0], output):
            y = self.adapt(site, layout.as_tokens(site, args[0]), y)  # the input's is the grid
        y = layout.from_tokens(site, y, own)
        if site.rows is None:
            return y
        return output.slice_scatter(y, -1, site.rows.start, site.rows.stop)

    def _recomputing(self, *read: Any) -> AbstractContextManager:
        return recomputing(*read) if self.recompute else nullcontext()


def overrides(method: PETLMethod, word: str) -> bool:
    """Whether a method says something of its own by one of the contract's words."""
    return getattr(type(method), word) is not getattr(PETLMethod, word)
