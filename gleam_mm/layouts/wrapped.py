"""Models of transformers and torchvision as backbones that pool as they themselves do."""

from typing import Any

from mmpretrain.models.backbones.base_backbone import BaseBackbone
from torch import Tensor, nn
from torchvision import models as torchvision_models

from gleam_mm.registry import MODELS


class LibraryBackbone(BaseBackbone):
    """A classifier of a library with an Identity in the place of its last Linear.

    It returns what that Linear would read, of shape (B, C): no neck is needed.

    Args:
        model: The classifier.
        head: The path of its last Linear, or of what holds that alone.
        init_cfg: As of other backbones.

    Attributes:
        model (nn.Module): The classifier without its last Linear.
        num_features (int): The number C.
    """

    def __init__(
        self, model: nn.Module, head: str, init_cfg: dict | list[dict] | None = None
    ) -> None:
        super().__init__(init_cfg)
        linear = [m for m in model.get_submodule(head).modules() if isinstance(m, nn.Linear)][-1]
        self.num_features = linear.in_features
        model.set_submodule(head, nn.Identity())
        self.model = model

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Pooled features (B, C) of images, in a tuple."""
        return (self.model(x),)


@MODELS.register_module()
class TransformersBackbone(LibraryBackbone):
    """An image classifier of Hugging Face's transformers up to its last Linear.

    Needs transformers: ``pip install transformers``. Weights have the names of its
    ``...ForImageClassification`` behind ``model.``.

    Args:
        model_type: What transformers calls the architecture, such as ``'dinov2'``, ``'clip'`` or
            ``'siglip'``, whose options are those of ``vision_config``.
        init_cfg: As of other backbones.
        **options: Options of the architecture's config, such as ``image_size``.

    Raises:
        ImportError: transformers is not installed.
        ValueError: It has no such architecture, or no image classifier of it.
    """

    def __init__(
        self, model_type: str, init_cfg: dict | list[dict] | None = None, **options: Any
    ) -> None:
        try:
            from transformers import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING, AutoConfig
        except ImportError as error:
            raise ImportError(
                f'TransformersBackbone needs transformers: pip install transformers ({error})'
            ) from error
        config = AutoConfig.for_model(model_type, **options)
        try:
            known: Any = MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING[type(config)]
        except KeyError as error:
            raise ValueError(
                f'model_type={model_type!r}: transformers has no image classifier of it'
            ) from error
        classifier = known[0] if isinstance(known, tuple) else known
        super().__init__(classifier(config), 'classifier', init_cfg)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Pooled features (B, C) of images, in a tuple."""
        return (self.model(pixel_values=x).logits,)


@MODELS.register_module()
class TorchvisionBackbone(LibraryBackbone):
    """A transformer of torchvision up to its last Linear.

    Args:
        model_name: Its name, such as ``'swin_t'`` or ``'vit_b_16'``.
        init_cfg: As of other backbones.
        **options: Options of the model, such as ``image_size``.

    Raises:
        ValueError: torchvision has no such model.
    """

    def __init__(
        self, model_name: str, init_cfg: dict | list[dict] | None = None, **options: Any
    ) -> None:
        model = torchvision_models.get_model(model_name, weights=None, **options)
        super().__init__(model, 'heads' if hasattr(model, 'heads') else 'head', init_cfg)
