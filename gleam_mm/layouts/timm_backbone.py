"""timm's transformers as backbones that pool as they themselves do."""

from collections.abc import Mapping, Sequence
from typing import Any

import timm
from mmpretrain.models.backbones import TIMMBackbone
from mmpretrain.models.backbones.base_backbone import BaseBackbone
from timm.layers import PatchDropout, PatchDropoutWithIndices, resample_abs_pos_embed
from timm.models import group_modules, group_parameters
from torch import Tensor, nn

from gleam_mm.layouts.base import OwnClassifier
from gleam_mm.layouts.wrapped import LibraryBackbone
from gleam_mm.registry import MODELS

_OF_TIMM_BACKBONE = ('type', 'init_cfg', 'features_only', 'pretrained', 'checkpoint_path')
"""Arguments of ``TIMMBackbone`` that a classifier with its weights has no use for."""


def timm_model(backbone: nn.Module) -> nn.Module:
    """The model inside of a ``TIMMBackbone``, or the backbone itself."""
    return backbone.timm_model if isinstance(backbone, TIMMBackbone) else backbone


def inner_model(backbone: nn.Module) -> tuple[Any, str]:
    """The library's own model in a backbone, and what stands before the names of its modules."""
    if isinstance(backbone, LibraryBackbone):
        return backbone.model, 'model.'
    model = timm_model(backbone)
    return model, '' if model is backbone else 'timm_model.'


def layers_of(model: Any, coarse: bool) -> tuple[dict[str, float], dict[str, float]]:
    """The layers that the class of a model of timm tells of its parameters and of its modules.

    Args:
        model: A model with a ``group_matcher()``, from which ``layer_decay`` takes them.
        coarse: Whether the blocks of a stage are one layer.

    Returns:
        The layers by the names of the parameters, and by those of the modules.
    """
    matcher = type(model).group_matcher(model, coarse=coarse)
    parameters = group_parameters(model, matcher, reverse=True)
    return dict(parameters), dict(group_modules(model, matcher, reverse=True))


def dropping(model: nn.Module) -> str:
    """Why the tokens of a model form no grid in training, if it drops some of them."""
    dropouts = [m for m in model.modules() if isinstance(m, PatchDropout | PatchDropoutWithIndices)]
    if not any(dropout.prob > 0 for dropout in dropouts):
        return ''
    return 'patch_drop_rate leaves some of them out in training; build the model without it'


def own_classifier(
    backbone: nn.Module, config: Mapping[str, Any], head: str, neck: Mapping[str, Any]
) -> OwnClassifier:
    """MMPretrain's classifier with the model that is in a ``TIMMBackbone``.

    Args:
        backbone: The backbone.
        config: Its config.
        head: The path of the model's Linear.
        neck: The config of the neck that its pooling stands for.
    """
    options = {key: value for key, value in config.items() if key not in _OF_TIMM_BACKBONE}
    if 'in_channels' in options:
        options['in_chans'] = options.pop('in_channels')
    described = {'type': 'TimmClassifier', **options}
    return OwnClassifier(described, timm_model(backbone), head, neck)


def fit_positions(backbone: nn.Module) -> None:
    """Lets a ``TIMMBackbone`` load position embeddings of another grid, as timm itself does.

    Published weights are for the size of images that they were trained with: of DINOv2, for 37 x 37
    patches. MMPretrain's own classes interpolate theirs in the same way. Anything else is left
    alone.
    """
    model: Any = getattr(backbone, 'timm_model', None)
    if getattr(model, 'pos_embed', None) is not None and hasattr(model, 'patch_embed'):
        model.register_load_state_dict_pre_hook(_resample_positions)


def _resample_positions(model: Any, state_dict: dict[str, Tensor], prefix: str, *_: Any) -> None:
    key = f'{prefix}pos_embed'
    given, own = state_dict.get(key), model.pos_embed
    if given is None or given.dim() != 3 or given.shape[1] == own.shape[1]:
        return
    bare = getattr(model, 'no_embed_class', False)
    state_dict[key] = resample_abs_pos_embed(
        given,
        new_size=list(model.patch_embed.grid_size),
        num_prefix_tokens=0 if bare else getattr(model, 'num_prefix_tokens', 1),
    )


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
        fit_positions(self)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Pooled features (B, C) of images, in a tuple."""
        return (self.timm_model(x),)


@MODELS.register_module()
class TIMMFeatureMaps(PooledTIMMBackbone):
    """A model of timm that returns maps of some of its blocks, for a feature pyramid.

    Args:
        model_name: The name of the model.
        out_indices: Which maps, as ``forward_intermediates`` of timm counts them: of a ViT the
            blocks, of a hierarchical model the stages; from the end where negative.
        in_channels: Channels of the images.
        init_cfg: As of :class:`PooledTIMMBackbone`.
        **options: Options of ``timm.create_model``, such as ``img_size``.
    """

    def __init__(
        self,
        model_name: str,
        out_indices: Sequence[int],
        in_channels: int = 3,
        init_cfg: dict | list[dict] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model_name, in_channels, init_cfg, **options)
        self.out_indices = list(out_indices)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Maps (B, C, H, W), in the order of the network."""
        model: Any = self.timm_model
        return tuple(
            model.forward_intermediates(
                x, indices=self.out_indices, output_fmt='NCHW', intermediates_only=True
            )
        )
