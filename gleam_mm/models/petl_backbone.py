"""A frozen backbone with a method, inside of any model of OpenMMLab."""

from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor

from gleam_mm.arguments import Checked
from gleam_mm.models import description
from gleam_mm.models.adapted import Adapted, draw_backbone, load_pretrained, split_pretrained
from gleam_mm.models.precision import fast_precision
from gleam_mm.petl.building import build_method
from gleam_mm.registry import MODELS, own_scope


@MODELS.register_module()
class PETLBackbone(Checked, Adapted, BaseModule):
    """A backbone whose weights are frozen and adapted, for a detector or a segmentor.

    It stands where such a model has its backbone, and returns what that returns: maps of several
    stages, where its options ask for them (``out_indices``, ``out_type='featmap'`` of MMPretrain's
    ViT; ``TIMMFeatureMaps`` of timm's models). Heads and necks train as they do.

    Checkpoints of the whole model hold, of this part, what is trained and the fingerprint of what
    is frozen. They load onto the very same frozen weights and options only.

    Args:
        backbone: Config of the backbone. Weights named in ``init_cfg=dict(type='Pretrained',
            checkpoint=..., prefix=...)`` are loaded at once and strictly.
        petl: Config of the method, or a list of them.
        init_cfg: As of other modules.
        allow_random_backbone: Says that a backbone without pretrained weights is meant. It is then
            drawn from a seed of its own.
        recompute: Whether what the method reads is computed again for its gradients where it can
            be, instead of kept, see :meth:`gleam_mm.petl.PETLMethod.attach`.

    Raises:
        ValueError: The method does not fit the backbone, or there are no pretrained weights.

    Examples:
        >>> backbone = dict(
        ...     _delete_=True,
        ...     type='gleam_mm.PETLBackbone',
        ...     backbone=dict(type='SwinTransformer', arch='base', out_indices=(0, 1, 2, 3), ...),
        ...     petl=dict(type='GLEAM', rank=8),
        ... )
    """

    def __init__(
        self,
        backbone: dict[str, Any],
        petl: dict[str, Any] | Sequence[dict[str, Any]],
        init_cfg: dict | list[dict] | None = None,
        allow_random_backbone: bool = False,
        recompute: bool = True,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if isinstance(petl, list | tuple):
            petl = dict(type='Compose', methods=list(petl))
        self.description = description.of_parts(method=petl, backbone=backbone)
        config, pretrained = split_pretrained(backbone)
        with own_scope():
            if pretrained is not None:
                self.backbone = MODELS.build(config)
                load_pretrained(self.backbone, pretrained)
            elif allow_random_backbone:
                self.backbone = draw_backbone(config)
            else:
                raise ValueError(
                    'the frozen backbone of PETLBackbone would have random weights: name some in '
                    "backbone.init_cfg=dict(type='Pretrained', checkpoint=...), or say that it is "
                    'meant by allow_random_backbone=True'
                )
            self.petl = build_method(petl)
        self.backbone.is_init = True  # so that init_weights() of the whole model leaves it alone
        self.adopt(recompute=recompute)
        self.keep_slim()

    def forward(self, x: Tensor) -> Any:
        """What the adapted backbone returns, such as maps (B, C, H, W) of several stages."""
        with fast_precision():
            return self.backbone(x)

    def losses(self) -> dict[str, Tensor]:
        """Losses of the method's own for the pass that has just ended, for the model to add."""
        return self.petl.all_losses()
