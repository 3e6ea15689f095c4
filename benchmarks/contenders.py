"""The models that speed is measured of: one backbone, alone and under every method, as trained.

What costs least is the *limit*: a frozen backbone with the gradient flowing through all of its
activations, which no method that adapts the first block can beat. At evaluation it is the backbone
alone. Either is in each library that a method may come from, for libraries differ in speed as well.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import gleam_mm  # first: torchvision may have to be mended before others import it

# isort: split
import peft
import timm
import torch
from torch import nn

from gleam_mm.config import recipes
from gleam_mm.layouts import LINEAR_ROLES
from gleam_mm.registry import MODELS

CLASSES = 100
MMPRETRAIN, TIMM = 'MMPretrain', 'timm'

TABLE_1 = (
    *('full', 'linear', 'bitfit', 'vpt-shallow', 'vpt-deep', 'adapter', 'adaptformer', 'lora'),
    *('noah', 'fact', 'fact-tk', 'ssf', 'repadapter', 'convpass', 'glora'),
    *('gleam-t', 'gleam-b', 'gleam-l'),
)
"""The presets of the methods of the paper's Table 1."""


@dataclass(frozen=True)
class Backbone:
    """A backbone in the libraries that have it.

    Attributes:
        title: What tables call it.
        config: MMPretrain's config, without the size of images.
        width: How many numbers it gives for an image.
        timm: The name and options of the same in timm; None where nothing is measured there.
    """

    title: str
    config: Mapping[str, Any]
    width: int
    timm: tuple[str, Mapping[str, Any]] | None = None

    def build(self, image_size: int, **options: Any) -> nn.Module:
        """The backbone in MMPretrain."""
        return MODELS.build(dict(self.config, img_size=image_size, **options))


def vit(width: int, depth: int, heads: int, hidden: int, patch: int = 16) -> dict:
    """The config of a ViT."""
    arch = dict(embed_dims=width, num_layers=depth, num_heads=heads, feedforward_channels=hidden)
    return dict(type='VisionTransformer', arch=arch, patch_size=patch)


BACKBONES = {
    'vit-b': Backbone('ViT-B/16', vit(768, 12, 12, 3072), 768, ('vit_base_patch16_224', {})),
    'vit-s': Backbone('ViT-S/16', vit(384, 12, 6, 1536), 384, ('vit_small_patch16_224', {})),
    'swin-b': Backbone('Swin-B', dict(type='SwinTransformer', arch='base'), 1024),
    'swin-t': Backbone('Swin-T', dict(type='SwinTransformer', arch='tiny'), 768),
    # Too small for anything but a test of the benchmark itself.
    'vit-mini': Backbone(
        'ViT of two blocks',
        vit(64, 2, 2, 256, patch=8),
        64,
        ('vit_tiny_patch16_224', dict(patch_size=8, embed_dim=64, depth=2, num_heads=2)),
    ),
    'swin-mini': Backbone(
        'Swin of four blocks',
        dict(
            type='SwinTransformer',
            arch=dict(embed_dims=32, depths=[2, 2], num_heads=[2, 2]),
            patch_size=2,
            window_size=4,
            out_indices=(1,),
        ),
        64,
    ),
}


@dataclass(frozen=True)
class Contender:
    """A model to measure.

    Attributes:
        origin: The library that it comes from, whose limit it is compared with.
        build: What makes it, of a backbone and the size of images: from images to logits.
        limit: Whether it is that limit.
        evaluated: Whether it is of interest at evaluation, too; else in training alone.
        of_a_card: Whether it is of interest on a GPU alone.
    """

    origin: str
    build: Callable[[Backbone, int], nn.Module]
    limit: bool = False
    evaluated: bool = True
    of_a_card: bool = False


def adapted(
    backbone: Backbone, image_size: int, petl: Mapping[str, Any], **options: Any
) -> nn.Module:
    """A classifier of ours on MMPretrain's backbone."""
    head = dict(type='LinearClsHead', in_channels=backbone.width, num_classes=CLASSES)
    pooled = backbone.config['type'] == 'VisionTransformer'
    return MODELS.build(
        dict(
            type='PETLClassifier',
            backbone=backbone.build(image_size),
            neck=None if pooled else dict(type='GlobalAveragePooling'),
            head=head,
            petl=dict(petl),
            **options,
        )
    )


def _preset(name: str, backbone: Backbone, image_size: int) -> nn.Module:
    return adapted(backbone, image_size, recipes.method_preset(name))


def _unfused(backbone: Backbone, image_size: int) -> nn.Module:
    """GLEAM-L by PyTorch's operations alone."""
    model = _preset('gleam-l', backbone, image_size)
    model.petl.shared['mixer'].fused = False
    return model


def _limit(backbone: Backbone, image_size: int) -> nn.Module:
    model = _preset('linear', backbone, image_size)
    # A gradient that starts at the patch embedding's bias runs through every block.
    model.backbone.patch_embed.projection.bias.requires_grad_(True)
    return model


def _lora_model(targets: str, backbone: Backbone, image_size: int) -> nn.Module:
    classifier = dict(
        type='ImageClassifier',
        backbone=dict(backbone.config, img_size=image_size),
        neck=None
        if backbone.config['type'] == 'VisionTransformer'
        else dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', in_channels=backbone.width, num_classes=CLASSES),
    )
    return MODELS.build(
        dict(
            type='mmpretrain.LoRAModel',
            module=classifier,
            alpha=8,
            rank=8,
            targets=[dict(type=targets)],
        )
    )


def _timm(backbone: Backbone, image_size: int) -> nn.Module:
    if backbone.timm is None:
        raise ValueError(f'nothing is measured of {backbone.title} in timm')
    name, options = backbone.timm
    return timm.create_model(name, num_classes=CLASSES, img_size=image_size, **options)


def _timm_limit(backbone: Backbone, image_size: int) -> nn.Module:
    model = _timm(backbone, image_size).requires_grad_(False)
    model.head.requires_grad_(True)
    model.patch_embed.proj.bias.requires_grad_(True)
    return model


def _on_timm(petl: Mapping[str, Any], backbone: Backbone, image_size: int) -> nn.Module:
    model = _timm(backbone, image_size)
    gleam_mm.attach(model, dict(petl))
    return model


def _hf_peft(targets: str, backbone: Backbone, image_size: int) -> nn.Module:
    config = peft.LoraConfig(r=8, lora_alpha=8, target_modules=targets)
    model = peft.get_peft_model(_timm(backbone, image_size), config)
    model.base_model.model.head.requires_grad_(True)
    return model


_PLAIN = ('full', 'linear', 'bitfit')
"""Methods that leave the backbone's computation as it is."""

_LORA_EVERYWHERE = dict(type='LoRA', rank=8, alpha=8.0, sites=LINEAR_ROLES)

CONTENDERS: dict[str, Contender] = {
    'limit': Contender(MMPRETRAIN, _limit, limit=True),
    **{
        name: Contender(MMPRETRAIN, partial(_preset, name), evaluated=name not in _PLAIN)
        for name in reversed(TABLE_1)
    },
    'gleam-l, without its kernel': Contender(MMPRETRAIN, _unfused, of_a_card=True),
    'gleam-l, recompute=False': Contender(
        MMPRETRAIN,
        lambda b, s: adapted(b, s, recipes.method_preset('gleam-l'), recompute=False),
        evaluated=False,
    ),
    'gleam-t of rank 8': Contender(
        MMPRETRAIN,
        lambda b, s: adapted(b, s, {**recipes.method_preset('gleam-t'), 'rank': 8}),
        of_a_card=True,
    ),
    'lora, every Linear': Contender(MMPRETRAIN, lambda b, s: adapted(b, s, _LORA_EVERYWHERE)),
    'lora, every Linear, recompute=False': Contender(
        MMPRETRAIN,
        lambda b, s: adapted(b, s, _LORA_EVERYWHERE, recompute=False),
        evaluated=False,
    ),
    "MMPretrain's LoRAModel": Contender(MMPRETRAIN, partial(_lora_model, r'.*qkv')),
    "MMPretrain's LoRAModel, every Linear": Contender(
        MMPRETRAIN, partial(_lora_model, r'.*attn.*\.(qkv|proj)|.*ffn\.layers\.(0\.0|1)')
    ),
    'limit (timm)': Contender(TIMM, _timm_limit, limit=True),
    'gleam-l (timm)': Contender(
        TIMM, lambda b, s: _on_timm(recipes.method_preset('gleam-l'), b, s)
    ),
    'lora, every Linear (timm)': Contender(TIMM, partial(_on_timm, _LORA_EVERYWHERE)),
    "HF PEFT's LoRA (timm)": Contender(TIMM, partial(_hf_peft, r'.*\.qkv')),
    "HF PEFT's LoRA, every Linear (timm)": Contender(
        TIMM, partial(_hf_peft, r'blocks\..*\.(qkv|proj|fc1|fc2)')
    ),
}
"""By the names of tables."""


def share_frozen(models: Mapping[str, nn.Module]) -> None:
    """Lets models of one library have one copy of what they all keep frozen, to save memory.

    Args:
        models: The models of one library and backbone, by name.
    """
    first: dict[tuple, torch.Tensor] = {}
    for model in models.values():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                continue
            end = name.removeprefix('base_model.model.').replace('base_layer.', '')
            end = end.removeprefix('module.').replace('original_layer.', '')
            key = end, parameter.shape, parameter.dtype
            parameter.data = first.setdefault(key, parameter.data)
