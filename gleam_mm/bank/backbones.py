"""The one backbone of a bank: which adapters belong to it, and what runs them."""

import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from mmengine.config import Config
from mmpretrain.models.heads import MultiTaskHead
from torch import Tensor, nn

from gleam_mm.bank.kind import Kind, Row, sharing
from gleam_mm.checkpoint import FINGERPRINT, CheckpointError
from gleam_mm.checkpoint.adapter import as_state_dict
from gleam_mm.inference import weights as backbone_weights
from gleam_mm.models import PETLClassifier, build_model, description, plain, timm_models
from gleam_mm.models.building import described_config
from gleam_mm.models.own_classifier import scores_of
from gleam_mm.models.parts import checked_part
from gleam_mm.registry import MODELS, own_scope

_HEAD = 'head.'
_ERRORS = (RuntimeError, ValueError, TypeError, LookupError)
"""What a method, a head or PyTorch raises where an adapter does not fit."""


class Backbone(ABC):
    """Frozen weights, and the kinds of adapters that are used on them.

    Args:
        module: What has them, in evaluation mode.
        device: Where it computes.
    """

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        self.module = module.requires_grad_(False).to(device)
        self.device = device
        # Adapters keep theirs alive.
        self._kinds: weakref.WeakKeyDictionary[Kind, tuple] = weakref.WeakKeyDictionary()
        self._building = threading.Lock()

    @property
    def bytes(self) -> int:
        """The size of its weights."""
        tensors = [*self.module.parameters(), *self.module.buffers()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def take(
        self, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], path: str | Path
    ) -> tuple[Kind, Row, nn.Module]:
        """What an adapter is here, after it was checked.

        Args:
            tensors: What :func:`~gleam_mm.checkpoint.read_adapter` read.
            metadata: The same.
            path: The file, for messages.

        Returns:
            Its kind, its numbers and its head.

        Raises:
            CheckpointError: It belongs to another backbone, or describes what is not built from a
                file. The message names the file.
        """
        try:
            kind, row, head = self._take(tensors, metadata, path)
        except _ERRORS as error:
            reason = ' '.join(str(error).split())
            named = reason.startswith(f'{path}: ')
            raise CheckpointError(reason if named else f'{path}: {reason}') from error
        return kind, row, head.requires_grad_(False).to(self.device).eval()

    @abstractmethod
    def scores(self, head: nn.Module, features: tuple[Tensor, ...]) -> Tensor:
        """What a head makes of pooled features (B, classes): scores from 0 to 1, or numbers."""

    @abstractmethod
    def _take(
        self, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], path: str | Path
    ) -> tuple[Kind, Row, nn.Module]:
        """See :meth:`take`."""

    def _kind(
        self, described: Mapping[str, Any], names: Collection[str], build: Callable[[], Kind]
    ) -> Kind:
        """The kind of these configs and tensors of the backbone's own, built where it is new."""
        with self._building:
            for kind, (others, there) in list(self._kinds.items()):
                if there == set(names) and not description.differences(described, others):
                    return kind
            kind = build()
            self._kinds[kind] = described, set(names)
            return kind


class ClassifierBackbone(Backbone):
    """The backbone of :class:`~gleam_mm.models.PETLClassifier`: what ``tools/train.py`` trains on.

    Args:
        config: The config of the backbone.
        who: Who needs it, for messages.
        weights: A file of weights that takes the place of the one in the config.
        device: Where it computes.

    Raises:
        FileNotFoundError: The weights are nowhere.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        who: object,
        weights: str | Path | None,
        device: torch.device,
    ) -> None:
        self.config = dict(config)
        model = dict(type='PETLClassifier', backbone=self.config, petl=dict(type='LinearProbe'))
        cfg = Config(dict(default_scope='gleam_mm', model={**model, 'probe': False}))
        cfg.merge_from_dict(backbone_weights.options(config, who, weights))
        bare = build_model(cfg)
        bare.petl.detach()
        super().__init__(bare.backbone, device)

    def scores(self, head: nn.Module, features: tuple[Tensor, ...]) -> Tensor:
        """What MMPretrain's heads predict."""
        samples = cast(Any, head).predict(features)
        return torch.stack([sample.pred_score for sample in samples]).float()

    def _take(
        self, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], path: str | Path
    ) -> tuple[Kind, Row, nn.Module]:
        if 'model' in metadata:
            raise CheckpointError(
                f'of a model of timm, and the backbone of this bank is a {self.config["type"]}: '
                'it needs a bank of its own'
            )
        model = described_config(metadata, path).model.to_dict()
        differing = description.differences(
            {'backbone': metadata['backbone']}, {'backbone': self.config}
        )
        if differing:
            raise CheckpointError('; '.join(map(str, differing)))
        described = description.of_parts(method=model['petl'], neck=model['neck'])
        kind = self._kind(described, (), lambda: self._build(model))
        state = {name: tensor for name, tensor in tensors.items() if not name.startswith(_HEAD)}
        row = kind.load(lambda model: model.checked(as_state_dict(state, metadata)))
        return kind, row, _head(model['head'], tensors, kind.width)

    def _build(self, config: Mapping[str, Any]) -> Kind:
        model = PETLClassifier(
            sharing(self.module),
            petl=config['petl'],
            neck=config['neck'],
            head=nn.Identity(),  # each adapter has its own
            probe=False,  # it was trained: whether it should be is no question any more
        )
        model.to(self.device).eval()
        names = model.state_dict().keys() - {FINGERPRINT}
        return Kind(model, _extract, names, model.petl.layout.image_shape())


class TimmBackbone(Backbone):
    """A model of timm without its classifier: what :func:`gleam_mm.save` saves from.

    Its weights are rounded to the type that those had which an adapter was trained on, and it
    computes in 32 bits, as :class:`gleam_mm.Predictor` does.

    Args:
        metadata: Those of an adapter, which say what it was trained on.
        who: Who needs it, for messages.
        weights: A file of weights, which is looked for elsewhere if there is none.
        device: Where it computes.

    Raises:
        CheckpointError: timm builds no such model, or the weights do not fit, or it does not read
            RGB.
        FileNotFoundError: The weights are nowhere.
    """

    def __init__(
        self,
        metadata: Mapping[str, Any],
        who: object,
        weights: str | Path | None,
        device: torch.device,
    ) -> None:
        described = metadata['model']
        self.described = _without_classes(described)
        self.precision = _precision_of(metadata)
        found = backbone_weights.of_timm(described, who, weights)
        options = {**self.described['options'], 'num_classes': 0}
        model: Any = timm_models.build({**self.described, 'options': options}, found)
        timm_models.require_rgb(model, self.described)
        self._classifier = model.pretrained_cfg['classifier']
        self._fingerprints: weakref.WeakKeyDictionary[Kind, str] = weakref.WeakKeyDictionary()
        super().__init__(model.eval().to(self._rounded).float(), device)

    @property
    def _rounded(self) -> torch.dtype:
        return getattr(torch, self.precision)

    def scores(self, head: nn.Module, features: tuple[Tensor, ...]) -> Tensor:
        """What the classifier's Linear gives, as :class:`gleam_mm.Predictor` tells it."""
        return scores_of(head(features[-1]))

    def _take(
        self, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], path: str | Path
    ) -> tuple[Kind, Row, nn.Module]:
        if not metadata.get('model'):
            raise CheckpointError(
                f'does not belong to a model of timm, as {self.described["name"]}, which is the '
                'backbone of this bank: it needs a bank of its own'
            )
        theirs = _without_classes(metadata['model'])
        if not timm_models.alike(theirs, self.described):
            raise CheckpointError(
                f'of {theirs["name"]} with {theirs["options"]}, but the backbone of this bank is '
                f'{self.described["name"]} with {self.described["options"]}'
            )
        if (precision := _precision_of(metadata)) != self.precision:
            raise CheckpointError(
                f'it was trained on weights in {precision}, but the backbone of this bank is '
                f'rounded to {self.precision}: it needs a bank of its own'
            )
        head, own = self._split(tensors)
        config = checked_part('method', metadata.get('method'))
        outside = [name for name in own if not name.startswith(f'{plain.NAME}.')]
        described = description.of_parts(method=config)
        kind = self._kind(described, outside, lambda: self._build(config, outside))

        def check(model: nn.Module) -> dict[str, Tensor]:
            fitting = plain.fitting(model, own, metadata, config)
            if kind not in self._fingerprints:
                found = plain.frozen_fingerprint(model, fitting, self._rounded)
                self._fingerprints[kind] = found
            plain.require_frozen(metadata, self._fingerprints[kind])
            return fitting

        row = kind.load(check)
        if head.in_features != kind.width:
            raise CheckpointError(
                f'its classifier reads {head.in_features} numbers, and the model gives {kind.width}'
            )
        return kind, row, head

    def _split(self, tensors: Mapping[str, Tensor]) -> tuple[nn.Linear, dict[str, Tensor]]:
        """The classifier in a file, and the rest of it."""
        own = dict(tensors)
        name = self._classifier
        weight = own.pop(f'{name}.weight', None)
        bias = own.pop(f'{name}.bias', None)
        if weight is None or weight.ndim != 2 or (bias is not None and len(bias) != len(weight)):
            raise CheckpointError(f'has no trained classifier {name}, which a bank needs of each')
        head = nn.Linear(weight.shape[1], len(weight), bias is not None)
        head.load_state_dict({'weight': weight} | ({} if bias is None else {'bias': bias}))
        return head, own

    def _build(self, config: Any, outside: Collection[str]) -> Kind:
        model = sharing(self.module)
        petl = plain.attach(model, config)
        petl.to(self._rounded).float()  # what it has that no file holds was rounded as well
        model.eval()
        inside = {name for name in model.state_dict() if name.startswith(f'{plain.NAME}.')}
        return Kind(model, _as_tuple, inside | set(outside), petl.layout.image_shape())


def _precision_of(metadata: Mapping[str, Any]) -> str:
    """The type of most of the numbers of an adapter's model."""
    return (metadata.get('precision') or {}).get('model', 'float32')


def _extract(model: Any, images: Tensor) -> tuple[Tensor, ...]:
    return tuple(model.extract_feat(images))


def _as_tuple(model: nn.Module, images: Tensor) -> tuple[Tensor, ...]:
    return (model(images),)


def _without_classes(described: Mapping[str, Any]) -> dict[str, Any]:
    options = {key: value for key, value in described['options'].items() if key != 'num_classes'}
    return {**described, 'options': options}


def _head(config: dict[str, Any], tensors: Mapping[str, Tensor], width: int) -> nn.Module:
    """The head of an adapter file."""
    state = {k.removeprefix(_HEAD): t for k, t in tensors.items() if k.startswith(_HEAD)}
    if 'fc.weight' in state:
        config = {**config, 'num_classes': len(state['fc.weight'])}
    if (reads := config.get('in_channels', width)) != width:
        raise CheckpointError(f'head.in_channels={reads}: the model gives {width} numbers an image')
    with own_scope():
        head = MODELS.build(config)
    if isinstance(head, MultiTaskHead):
        raise CheckpointError(
            f'head.type={config["type"]}: a bank tells one task by each file; gleam_mm.Predictor '
            'tells several'
        )
    head.load_state_dict(state)
    return head
