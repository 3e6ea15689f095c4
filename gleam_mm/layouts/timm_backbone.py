"""timm's transformers as backbones that pool as they themselves do."""

from typing import Any

import timm
from mmpretrain.models.backbones import TIMMBackbone
from mmpretrain.models.backbones.base_backbone import BaseBackbone
from torch import Tensor

from gleam_mm.registry import MODELS


@MODELS.register_module()
class PooledTIMMBackbone(TIMMBackbone):
    """A model of timm up to its classifier, with the pooling that it was pretrained with.

    It returns what timm's ``forward_head(pre_logits=True)`` does, of shape (B, C): no neck is
    needed, and none is to be chosen. MMPretrain's ``TIMMBackbone`` returns tokens instead, and
    drops the weights of an attention pooling (SigLIP) and norms before it pools (``fc_norm``).

    Args:
        model_name: The name of the model.
        in_channels: Channels of the images.
        init_cfg: As of other backbones; ``dict(type='Pretrained', checkpoint=...)`` with the names
            of ``tools/convert_weights.py --target timm-pooled``.
        **options: Options of ``timm.create_model``, such as ``img_size``.
    """

    def __init__(
        self,
        model_name: str,
        in_channels: int = 3,
        init_cfg: dict | list[dict] | None = None,
        **options: Any,
    ) -> None:
        BaseBackbone.__init__(self, init_cfg)  # not TIMMBackbone's, which resets the pooling
        self.timm_model = timm.create_model(
            model_name, num_classes=0, in_chans=in_channels, **options
        )

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Pooled features (B, C) of images, in a tuple."""
        return (self.timm_model(x),)
