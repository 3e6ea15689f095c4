"""The image classifier that trains a PETL method and a head on a frozen backbone."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.model import BaseModule
from mmpretrain.models import ImageClassifier
from mmpretrain.models.heads import ClsHead, CSRAClsHead
from torch import Tensor, nn

from gleam_mm.checkpoint import FINGERPRINT, CheckpointError, fingerprint, load_backbone
from gleam_mm.checkpoint.identity import pack, unpack
from gleam_mm.checkpoint.packing import without_scales
from gleam_mm.layouts import fit_positions
from gleam_mm.models import description, library
from gleam_mm.models.necks import TokenPool
from gleam_mm.models.precision import attention_context
from gleam_mm.petl import Compose, PETLMethod
from gleam_mm.registry import MODELS, own_scope

_READ_MAPS = (CSRAClsHead,)
"""Heads that pool by themselves what the backbone gives."""


@MODELS.register_module()
class PETLClassifier(ImageClassifier):
    """An :class:`~mmpretrain.models.ImageClassifier` whose backbone is frozen and adapted.

    Everything but the method's parameters, the neck and the head is frozen. The backbone's dropout
    and drop path stay as its config sets them. Backbone weights named in
    ``backbone.init_cfg=dict(type='Pretrained', checkpoint=..., prefix=...)`` are loaded at once and
    strictly, so that training and testing start from the same model.

    The state dict, and with it every checkpoint, holds what is trained, the fingerprint of what is
    frozen, and the options. It loads onto a model with the very same frozen weights and options
    only.

    Args:
        backbone: Config of the backbone, or the backbone.
        petl: Config of the :class:`~gleam_mm.petl.PETLMethod`, or the method; a list of them is a
            :class:`~gleam_mm.petl.Compose`.
        neck: Config of a neck, needed where the backbone does not return pooled features.
        head: Config of the head. Its ``num_classes`` must be set by now.
        train_cfg: Batch augmentations, as in MMPretrain.
        data_preprocessor: Config of the data preprocessor, as in MMPretrain.
        init_cfg: Initialisation config of the whole classifier, as in MMEngine.
        allow_random_backbone: Says that a backbone without pretrained weights is meant. It is then
            drawn from a seed of its own, so that every training has the same one.
        probe: Whether to prove by one small pass that the backbone computes through the sites that
            the method adapts.
        adapters: Files of trained adapters by name, for a method that is made of others: each is
            loaded into the part of that name, which is frozen. Parts that ``petl`` does not have
            are those that the files say.
        teacher: Config of a :class:`~gleam_mm.models.Teacher` that is distilled; only a training
            has it.

    Attributes:
        description (dict): The configs of its parts, by the names of
            :data:`gleam_mm.checkpoint.DESCRIBED`; without the parts that were given as modules.

    Raises:
        TypeError: JSON has no word for an option, so that no checkpoint could hold it.
        ValueError: The method does not fit the backbone, or the head has no number of classes.
        CheckpointError: An adapter is damaged, does not fit, or belongs to another backbone.
    """

    def __init__(
        self,
        backbone: dict | nn.Module,
        petl: dict | PETLMethod | Sequence[dict | PETLMethod],
        neck: dict | nn.Module | None = None,
        head: dict | nn.Module | None = None,
        train_cfg: dict | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
        allow_random_backbone: bool = False,
        probe: bool = True,
        adapters: Mapping[str, str | Path] | None = None,
        teacher: dict | None = None,
    ) -> None:
        if isinstance(head, dict) and 'num_classes' in head and head['num_classes'] is None:
            raise ValueError(
                'model.head.num_classes is None: set it to the number of classes, or let '
                'gleam_mm.engine.fill_num_classes(cfg) read it from the training dataset'
            )
        if isinstance(petl, list | tuple):
            configs = all(isinstance(method, dict) for method in petl)
            petl = dict(type='Compose', methods=petl) if configs else Compose(petl)
        taken = library.read(adapters or {})
        if taken and isinstance(petl, dict):
            petl = library.configured(petl, taken)
        self.description = description.of_parts(
            method=petl,
            backbone=backbone,
            neck=neck,
            head=head,
            data_preprocessor=data_preprocessor,
        )
        pretrained = None
        if isinstance(backbone, dict):
            backbone, pretrained = _split_pretrained(backbone)
            if allow_random_backbone and pretrained is None:
                backbone = _draw_backbone(backbone)
        with own_scope():
            super().__init__(
                backbone=backbone,
                neck=neck,
                head=head,
                train_cfg=train_cfg,
                data_preprocessor=data_preprocessor,
                init_cfg=init_cfg,
            )
        if pretrained is not None:
            fit_positions(self.backbone)
            load_backbone(self.backbone, pretrained['checkpoint'], pretrained.get('prefix') or '')
            self.backbone.is_init = True  # so that init_weights() leaves it alone
        with own_scope():
            self.petl = petl if isinstance(petl, nn.Module) else MODELS.build(petl)
        if not isinstance(self.petl, PETLMethod):
            raise ValueError(
                f'model.petl is a {type(self.petl).__name__}; it takes a PETL method such as '
                "dict(type='GLEAM')"
            )
        self.backbone.requires_grad_(False)
        with library.budget(taken, self.backbone):
            self.petl.attach(self.backbone, probe=probe)
        if taken:
            library.hand_over(taken, self.petl, fingerprint(self.backbone.state_dict()))
        self._check_class_token()
        self._check_width()
        self.teacher: Any = None if teacher is None else self._teacher_of(teacher)
        for _, parameter in self.petl.trainable_parameters():
            parameter.requires_grad_(True)
        self._frozen = self._frozen_names()
        self._fingerprint: tuple[tuple[int, ...], str] | None = None
        self._register_state_dict_hook(_drop_frozen)
        self._register_load_state_dict_pre_hook(self._complete_state_dict)

    def _check_width(self) -> None:
        """Refuses a head that reads another width than the backbone gives."""
        reads = getattr(self.head, 'in_channels', None) if self.with_head else None
        if reads is None or (self.with_neck and any(True for _ in self.neck.parameters())):
            return  # a neck that learns may change the width
        width = self.petl.layout.features
        if width is not None and reads != width:
            raise ValueError(
                f'model.head.in_channels={reads}: the backbone gives {width} numbers an image'
            )

    def extract_feat(self, inputs: Tensor, stage: str = 'neck') -> tuple[Tensor, ...] | Tensor:
        """Extracts features, as in MMPretrain.

        Raises:
            ValueError: The features are not pooled, so that the head would classify every token.
        """
        with attention_context():
            feats = super().extract_feat(inputs, stage)
        if stage == 'neck' and self.with_head and not isinstance(self.head, _READ_MAPS):
            last = feats[-1]  # of a distilled DeiT, the features of two tokens
            for feature in last if isinstance(last, tuple | list) else (last,):
                if (shape := feature.shape)[2:]:
                    raise ValueError(
                        f'the head would get features of shape {tuple(shape)} instead of (B, C): '
                        f'add a neck that pools, such as model.neck={dict(self.petl.layout.neck)}'
                    )
        return feats

    def loss(self, inputs: Tensor, data_samples: list) -> dict[str, Tensor]:
        """Losses of the head, as in MMPretrain, of a teacher, and of the method.

        The latter two are ``loss_distillation`` and ``loss_<name>``. With a teacher, images need no
        labels.
        """
        if self.teacher is None:
            losses = super().loss(inputs, data_samples)
        else:
            losses = self._distilled(inputs, data_samples)
        losses.update({f'loss_{name}': loss for name, loss in self.petl.all_losses().items()})
        return losses

    def _distilled(self, inputs: Tensor, data_samples: list) -> dict[str, Tensor]:
        teacher, feats = self.teacher, self.extract_feat(inputs)
        told = teacher.logits(inputs, self.data_preprocessor)
        losses = {'loss_distillation': teacher.divergence(self.head(feats), told)}
        known = [
            i
            for i, sample in enumerate(data_samples)
            if {'gt_label', 'gt_score'} & {*sample.keys()}
        ]
        if known and teacher.label_weight:
            own = self.head.loss(tuple(f[known] for f in feats), [data_samples[i] for i in known])
            for name, value in own.items():
                losses[name] = teacher.label_weight * value if 'loss' in name else value
        return losses

    def _teacher_of(self, config: dict) -> Any:
        with own_scope():
            teacher = MODELS.build({'type': 'Teacher', **config})
        for model in (self, teacher.model):
            if not isinstance(model.head, ClsHead):
                raise ValueError(
                    f'model.teacher: a {type(model.head).__name__} tells no classes to distil'
                )
        ours, theirs = (model.head.num_classes for model in (self, teacher.model))
        if ours != theirs:
            raise ValueError(
                f'model.teacher tells {theirs} classes, but model.head.num_classes is {ours}'
            )
        return teacher

    def backbone_fingerprint(self) -> str:
        """Hexadecimal SHA-256 of the frozen weights' names, types, shapes and values.

        Raises:
            RuntimeError: The method is merged, so that the frozen weights are not what it was
                trained on. A checkpoint saved now could never be loaded again.
        """
        if self.petl.merged:
            raise RuntimeError(
                'the method is merged into the backbone: call petl.unmerge() before saving or '
                'loading, or write the merged model with tools/merge.py'
            )
        frozen = {
            name: tensor
            for name, tensor in self.backbone.state_dict().items()
            if f'backbone.{name}' in self._frozen
        }
        versions = tuple(tensor._version for tensor in frozen.values())
        if self._fingerprint is None or self._fingerprint[0] != versions:
            self._fingerprint = versions, fingerprint(frozen)
        return self._fingerprint[1]

    def get_extra_state(self) -> Tensor:
        """The fingerprint and the options as bytes, so that checkpoints hold tensors alone."""
        return pack(self.backbone_fingerprint(), self.description)

    def set_extra_state(self, state: Tensor) -> None:
        """Does nothing: it was compared before anything was loaded."""

    def _check_class_token(self) -> None:
        first = isinstance(self.neck, TokenPool) and self.neck.mode == 'cls'
        if first and not self.petl.layout.num_prefix_tokens:
            raise ValueError(
                "model.neck.mode='cls': this backbone has no class token, and its first token is "
                "a patch like others: choose mode='mean', or, where timm pools otherwise (SigLIP), "
                "backbone=dict(type='PooledTIMMBackbone', ...) without a neck"
            )

    def _frozen_names(self) -> frozenset[str]:
        parameters = dict(self.backbone.named_parameters())
        frozen = {name for name, parameter in parameters.items() if not parameter.requires_grad}
        if frozen:  # then the buffers belong to frozen modules as well
            frozen |= self.backbone.state_dict().keys() - parameters.keys()
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
                'this is no checkpoint of a PETLClassifier: it has no fingerprint of a backbone. '
                'Weights of a backbone belong into model.backbone.init_cfg='
                "dict(type='Pretrained', checkpoint=..., prefix=...)"
            )
        theirs, described = unpack(state_dict[FINGERPRINT])
        if theirs != (ours := self.backbone_fingerprint()):
            raise CheckpointError(
                f'this checkpoint was trained on a backbone with the fingerprint {theirs}, but '
                f'the backbone of this model has {ours}: use the config and the backbone weights '
                'that the checkpoint was trained with'
            )
        if differing := description.differences(described, self.description):
            raise CheckpointError(
                f'{"; ".join(map(str, differing))}: use the config that the checkpoint was trained '
                'with'
            )
        own = self.state_dict()
        given = without_scales(state_dict, own)
        _require_equal(given.keys() - self._frozen, own.keys(), 'keys')
        own.pop(FINGERPRINT)
        for key, ours in own.items():
            theirs = given[key]
            if theirs.shape != ours.shape:
                hint = ' (number of classes)' if key.startswith('head.') else ''
                raise CheckpointError(
                    f'{key} has the shape {tuple(theirs.shape)} in the checkpoint but '
                    f'{tuple(ours.shape)} in the model{hint}: use the config that the checkpoint '
                    'was trained with'
                )
            both_float = theirs.is_floating_point() and ours.is_floating_point()
            if theirs.dtype != ours.dtype and not both_float:  # copying would cast without a word
                raise CheckpointError(
                    f'{key} holds {theirs.dtype} in the checkpoint but {ours.dtype} in the model: '
                    'the file is damaged or crafted'
                )
        return {key: given[key] for key in own}

    def _complete_state_dict(self, state_dict: dict, prefix: str, *args: object) -> None:
        """Checks a state dict and lends it the frozen weights, which it does not hold."""
        ours = {key for key in state_dict if key.startswith(prefix)}
        given = {key.removeprefix(prefix): state_dict[key] for key in ours}
        backbone = self.backbone.state_dict()
        frozen = {key: backbone[key.removeprefix('backbone.')] for key in self._frozen}
        # A file that has the frozen weights too does not change them.
        complete = {**self.checked(given), FINGERPRINT: given[FINGERPRINT], **frozen}
        for key in ours:
            del state_dict[key]
        state_dict.update({prefix + key: tensor for key, tensor in complete.items()})


def _draw_backbone(config: dict) -> nn.Module:
    """Builds a backbone whose weights depend on its config alone."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = MODELS.build(config)
        if isinstance(backbone, BaseModule):
            backbone.init_weights()
    return backbone


def _split_pretrained(backbone: dict) -> tuple[dict, dict | None]:
    """Takes ``dict(type='Pretrained')`` out of a backbone's init_cfg."""
    init_cfgs = backbone.get('init_cfg')
    if init_cfgs is None:
        return backbone, None
    init_cfgs = [init_cfgs] if isinstance(init_cfgs, dict) else list(init_cfgs)
    pretrained = [cfg for cfg in init_cfgs if cfg['type'] == 'Pretrained']
    rest = [cfg for cfg in init_cfgs if cfg['type'] != 'Pretrained']
    return {**backbone, 'init_cfg': rest or None}, pretrained[-1] if pretrained else None


def _drop_frozen(
    classifier: PETLClassifier, state_dict: dict, prefix: str, local_metadata: dict
) -> None:
    """Takes the frozen weights out of a state dict."""
    for name in classifier._frozen:
        state_dict.pop(prefix + name, None)


def _require_equal(given: Iterable[str], expected: Iterable[str], what: str) -> None:
    missing, unexpected = sorted(set(expected) - set(given)), sorted(set(given) - set(expected))
    if missing or unexpected:
        raise CheckpointError(
            f'the {what} of the checkpoint and the model differ: use the config that the '
            f'checkpoint was trained with. Missing: {_shorten(missing)}. '
            f'Unexpected: {_shorten(unexpected)}'
        )


def _shorten(keys: list[str], most: int = 5) -> str:
    if not keys:
        return 'none'
    return ', '.join(keys[:most]) + (f' and {len(keys) - most} more' if len(keys) > most else '')
