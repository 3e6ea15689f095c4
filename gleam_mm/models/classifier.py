"""The image classifier that trains a PETL method and a head on a frozen backbone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmpretrain.models import ImageClassifier
from mmpretrain.models.heads import ClsHead, CSRAClsHead
from torch import Tensor, nn

from gleam_mm.arguments import Checked
from gleam_mm.checkpoint import fingerprint
from gleam_mm.models import description, library
from gleam_mm.models.adapted import Adapted, draw_backbone, load_pretrained, split_pretrained
from gleam_mm.models.frozen_prefix import Cached
from gleam_mm.models.necks import TokenPool
from gleam_mm.models.precision import fast_precision
from gleam_mm.petl import Compose, PETLMethod
from gleam_mm.petl.building import build_method
from gleam_mm.registry import MODELS, own_scope

_READ_MAPS = (CSRAClsHead,)
"""Heads that pool by themselves what the backbone gives."""


@MODELS.register_module()
class PETLClassifier(Checked, Adapted, ImageClassifier):
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
        recompute: Whether what the method reads is computed again for its gradients where it can
            be, instead of kept, see :meth:`gleam_mm.petl.PETLMethod.attach`.

    Attributes:
        description (dict): The configs of its parts, by the names of
            :data:`gleam_mm.checkpoint.DESCRIBED`; without the parts that were given as modules.

    Raises:
        TypeError: JSON has no word for an option, so that no checkpoint could hold it.
        ValueError: The method does not fit the backbone, or the head has no number of classes, or
            is to tell the only one there is.
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
        recompute: bool = True,
    ) -> None:
        if isinstance(head, dict) and 'num_classes' in head and head['num_classes'] is None:
            raise ValueError(
                'model.head.num_classes is None: set it to the number of classes, or let '
                'gleam_mm.engine.fill_num_classes(cfg) read it from the training dataset'
            )
        if isinstance(petl, list | tuple):
            configs = all(isinstance(method, dict) for method in petl)
            petl = dict(type='Compose', methods=petl) if configs else Compose(petl)
        taken = library.read(library.files_by_name(adapters))
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
            backbone, pretrained = split_pretrained(backbone)
            if allow_random_backbone and pretrained is None:
                backbone = draw_backbone(backbone)
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
            load_pretrained(self.backbone, pretrained)
            self.backbone.is_init = True  # so that init_weights() leaves it alone
        with own_scope():
            self.petl = build_method(petl)
        with library.budget(taken, self.backbone):
            self.adopt(probe, recompute)
        if taken:
            library.hand_over(taken, self.petl, fingerprint(self.backbone.state_dict()))
        self._check_class_token()
        self._check_width()
        self._check_several_classes()
        self.teacher: Any = None if teacher is None else self._teacher_of(teacher)
        self.keep_slim()

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

    def _check_several_classes(self) -> None:
        """Refuses a softmax over one class: its loss is 0, and every image is told rightly."""
        for name, head in self.head.named_modules(prefix='model.head') if self.with_head else ():
            if isinstance(head, ClsHead) and getattr(head, 'num_classes', None) == 1:
                raise ValueError(
                    f'{name}.num_classes=1: a {type(head).__name__} tells classes apart, and '
                    'learns nothing where there is one; give data of two classes at least (where '
                    'these are folders inside of the only one, give that folder itself), or, of '
                    "numbers, take type='RegressionHead'"
                )

    def extract_feat(
        self, inputs: Tensor | Cached, stage: str = 'neck'
    ) -> tuple[Tensor, ...] | Tensor:
        """Extracts features, as in MMPretrain, or goes on from those of a frozen prefix.

        Raises:
            ValueError: The features are not pooled, so that the head would classify every token.
        """
        if isinstance(inputs, Cached):
            with inputs.prefix.resumed(inputs.features) as blank:
                return self.extract_feat(blank, stage)
        with fast_precision():
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

    def _check_class_token(self) -> None:
        first = isinstance(self.neck, TokenPool) and self.neck.mode == 'cls'
        if first and not self.petl.layout.num_prefix_tokens:
            raise ValueError(
                "model.neck.mode='cls': this backbone has no class token, and its first token is "
                "a patch like others: choose mode='mean', or, where timm pools otherwise (SigLIP), "
                "backbone=dict(type='PooledTIMMBackbone', ...) without a neck"
            )
