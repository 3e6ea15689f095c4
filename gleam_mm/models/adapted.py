"""What models with a frozen, adapted backbone have in common: what they save, and how they load."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from gleam_mm.checkpoint import FINGERPRINT, CheckpointError, fingerprint, load_backbone
from gleam_mm.checkpoint.identity import pack, unpack
from gleam_mm.checkpoint.packing import without_scales
from gleam_mm.layouts import fit_positions
from gleam_mm.messages import listed
from gleam_mm.models import description
from gleam_mm.models.parts import require_told
from gleam_mm.models.statistics import learning_statistics, still
from gleam_mm.petl import PETLMethod
from gleam_mm.petl.constants import Seen
from gleam_mm.registry import MODELS
from gleam_mm.shell import command


class Adapted:
    """Mixed into a module with a frozen ``backbone`` and the method ``petl``: slim state dicts.

    They hold what is trained, the fingerprint of what is frozen, and the options. They load onto a
    model with the very same frozen weights and options only.

    Attributes:
        description (dict): The configs of its parts, see :mod:`gleam_mm.models.description`.
    """

    backbone: Any
    petl: PETLMethod
    description: dict[str, Any]
    state_dict: Callable[[], dict[str, Tensor]]
    _register_state_dict_hook: Callable[[Callable], Any]
    _register_load_state_dict_pre_hook: Callable[[Callable], Any]

    def adopt(self, probe: bool = True, recompute: bool = True) -> None:
        """Freezes the backbone, attaches the method, and lets what the method trains be trained.

        The running statistics of frozen norms stay as they are, in training mode as well.

        Args:
            probe: As in :meth:`gleam_mm.petl.PETLMethod.attach`, and so is ``recompute``.
            recompute: See there.

        Raises:
            ValueError: The method does not fit the backbone, or has an option that no file may
                have.
        """
        require_told(self.description.get('method'))
        self.backbone.requires_grad_(False)
        self.petl.attach(self.backbone, probe=probe, recompute=recompute)
        for _, parameter in self.petl.trainable_parameters():
            parameter.requires_grad_(True)
        still(self.backbone)

    def keep_slim(self) -> None:
        """Leaves what is frozen by now out of state dicts."""
        self._frozen = self._frozen_names()
        self._fingerprint: tuple[list[Seen], str] | None = None
        self._pinned: str | None = None
        self._register_state_dict_hook(_drop_frozen)
        self._register_load_state_dict_pre_hook(self._complete_state_dict)

    def pin_fingerprint(self) -> None:
        """Keeps to the fingerprint of now, for who keeps the frozen weights in another form."""
        self._pinned = self.backbone_fingerprint()

    def backbone_fingerprint(self) -> str:
        """Hexadecimal SHA-256 of the frozen weights' names, types, shapes and values.

        Raises:
            RuntimeError: The method is merged, so that the frozen weights are not what it was
                trained on. A checkpoint saved now could never be loaded again.
        """
        if self.petl.merged:
            raise RuntimeError(
                'the method is merged into the backbone: call petl.unmerge() before saving or '
                f'loading, or write the merged model with {command("merge")!r}'
            )
        if self._pinned is not None:
            return self._pinned
        frozen = {
            name: tensor
            for name, tensor in self.backbone.state_dict(keep_vars=True).items()
            if f'backbone.{name}' in self._frozen
        }
        seen, known = self._fingerprint or ([], '')
        tensors = [*frozen.values()]
        others = [id(one.tensor) for one in seen] != [id(tensor) for tensor in tensors]
        if not known or others or any(one.changed for one in seen):
            known = fingerprint(frozen)
            self._fingerprint = [Seen.now(tensor) for tensor in tensors], known
        return known

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        # Twice converted, weights may be back at an address with other values.
        self._fingerprint = None
        return super()._apply(fn, recurse)  # type: ignore[misc]

    def get_extra_state(self) -> Tensor:
        """The fingerprint and the options as bytes, so that checkpoints hold tensors alone."""
        return pack(self.backbone_fingerprint(), self.description)

    def set_extra_state(self, state: Tensor) -> None:
        """Does nothing: it was compared before anything was loaded."""

    def _frozen_names(self) -> frozenset[str]:
        parameters = dict(self.backbone.named_parameters(remove_duplicate=False))
        frozen = {name for name, parameter in parameters.items() if not parameter.requires_grad}
        if frozen:  # then most buffers belong to frozen modules as well
            frozen |= self.backbone.state_dict().keys() - parameters.keys()
            frozen -= learning_statistics(self.backbone, parameters.keys() - frozen)
        return frozenset(f'backbone.{name}' for name in frozen)

    def checked(self, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What a state dict holds of this model, which stays as it is.

        Args:
            state_dict: That of a checkpoint, with its fingerprint.

        Returns:
            The tensors that are trained, and whatever belongs to them, by name.

        Raises:
            CheckpointError: It was trained on other frozen weights or with other options, or its
                names, shapes or types are not those of the model.
        """
        if FINGERPRINT not in state_dict:
            raise CheckpointError(
                f'this is no checkpoint of a {type(self).__name__}: it has no fingerprint of a '
                'backbone. Weights of a backbone belong into model.backbone.init_cfg='
                "dict(type='Pretrained', checkpoint=..., prefix=...)"
            )
        theirs, described = unpack(state_dict[FINGERPRINT])
        # First, for a method that trains other parameters leaves others frozen.
        if differing := description.differences(described, self.description):
            raise CheckpointError(
                f'{"; ".join(map(str, differing))}: use the config that the checkpoint was trained '
                'with'
            )
        if theirs != (ours := self.backbone_fingerprint()):
            raise CheckpointError(
                f'this checkpoint was trained on a backbone with the fingerprint {theirs}, but '
                f'the backbone of this model has {ours}: use the config and the backbone weights '
                'that the checkpoint was trained with'
            )
        own = self.state_dict()
        given = without_scales(state_dict, own)
        _require_equal(given.keys() - self._frozen, own.keys())
        own.pop(FINGERPRINT)
        for key, tensor in own.items():
            other = given[key]
            if other.shape != tensor.shape:
                hint = ' (number of classes)' if key.startswith('head.') else ''
                raise CheckpointError(
                    f'{key} has the shape {tuple(other.shape)} in the checkpoint but '
                    f'{tuple(tensor.shape)} in the model{hint}: use the config that the checkpoint '
                    'was trained with'
                )
            both_float = other.is_floating_point() and tensor.is_floating_point()
            if other.dtype != tensor.dtype and not both_float:  # copying would cast without a word
                raise CheckpointError(
                    f'{key} holds {other.dtype} in the checkpoint but {tensor.dtype} in the model: '
                    'the file is damaged or crafted'
                )
        return {key: given[key] for key in own}

    def _complete_state_dict(self, state_dict: dict, prefix: str, *args: object) -> None:
        """Checks a state dict and lends it the frozen weights, which it does not hold."""
        ours = {key for key in state_dict if key.startswith(prefix)}
        given = {key.removeprefix(prefix): state_dict[key] for key in ours}
        if prefix and not given:  # of a model around this one, whose heads are loaded alone
            return
        backbone = self.backbone.state_dict()
        frozen = {key: backbone[key.removeprefix('backbone.')] for key in self._frozen}
        # A file that has the frozen weights too does not change them.
        complete = {**self.checked(given), FINGERPRINT: given[FINGERPRINT], **frozen}
        for key in ours:
            del state_dict[key]
        state_dict.update({prefix + key: tensor for key, tensor in complete.items()})


def draw_backbone(config: dict) -> nn.Module:
    """Builds a backbone whose weights depend on its config alone."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = MODELS.build(config)
        if isinstance(backbone, BaseModule):
            backbone.init_weights()
    return backbone


def load_pretrained(backbone: nn.Module, pretrained: Mapping[str, Any]) -> None:
    """Loads the weights that a ``dict(type='Pretrained')`` names into a backbone, strictly."""
    fit_positions(backbone)
    load_backbone(backbone, pretrained['checkpoint'], pretrained.get('prefix') or '')


def split_pretrained(backbone: dict) -> tuple[dict, dict | None]:
    """Takes ``dict(type='Pretrained')`` out of a backbone's init_cfg."""
    init_cfgs = backbone.get('init_cfg')
    if init_cfgs is None:
        return backbone, None
    init_cfgs = [init_cfgs] if isinstance(init_cfgs, dict) else list(init_cfgs)
    pretrained = [cfg for cfg in init_cfgs if cfg['type'] == 'Pretrained']
    rest = [cfg for cfg in init_cfgs if cfg['type'] != 'Pretrained']
    return {**backbone, 'init_cfg': rest or None}, pretrained[-1] if pretrained else None


def _drop_frozen(model: Adapted, state_dict: dict, prefix: str, local_metadata: dict) -> None:
    """Takes the frozen weights out of a state dict."""
    for name in model._frozen:
        state_dict.pop(prefix + name, None)


def _require_equal(given: Iterable[str], expected: Iterable[str]) -> None:
    missing, unexpected = sorted(set(expected) - set(given)), sorted(set(given) - set(expected))
    if missing or unexpected:
        raise CheckpointError(
            'the keys of the checkpoint and the model differ: use the config that the '
            f'checkpoint was trained with. Missing: {listed(missing)}. '
            f'Unexpected: {listed(unexpected)}'
        )
