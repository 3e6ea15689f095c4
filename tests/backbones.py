"""Tiny backbones of every supported kind, with random weights, and what pools their features."""

import copy
from functools import partial

import pytest

from gleam_mm.registry import MODELS

CONFIGS = {
    'vit': dict(
        type='VisionTransformer',
        arch=dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=128),
        img_size=32,
        patch_size=8,
    ),
    'swin': dict(
        type='SwinTransformer',
        arch=dict(embed_dims=16, depths=[2, 2], num_heads=[2, 2]),
        img_size=32,
        patch_size=2,
        window_size=4,
        drop_path_rate=0.0,
        out_indices=(1,),
    ),
    'timm-vit': dict(
        type='TIMMBackbone',
        model_name='vit_tiny_patch16_224',
        img_size=32,
        patch_size=8,
        embed_dim=32,
        depth=2,
        num_heads=2,
    ),
    'timm-swin': dict(
        type='TIMMBackbone',
        model_name='swin_tiny_patch4_window7_224',
        img_size=32,
        patch_size=2,
        embed_dim=16,
        depths=(2, 2),
        num_heads=(2, 2),
        window_size=4,
        drop_path_rate=0.0,
    ),
}
NECKS = {
    'vit': None,
    'swin': dict(type='GlobalAveragePooling'),
    'timm-vit': dict(type='TokenPool', mode='cls'),
    'timm-swin': dict(type='TokenPool', mode='mean'),
}
WIDTH = 32
"""Width of the pooled features, of all of them."""


def _build(kind, **options):
    return MODELS.build({**copy.deepcopy(CONFIGS[kind]), **options})


BACKBONES = {kind: partial(_build, kind) for kind in CONFIGS}
"""What builds each of them, with further options of the class."""

VIT_FIRST = [pytest.param(kind, marks=[pytest.mark.slow] * (kind != 'vit')) for kind in BACKBONES]
"""All of them for a test, of which the fast suite takes one."""


def evaluating(backbone):
    """The backbone in evaluation mode; MMPretrain's ``eval()`` returns None."""
    backbone.eval()
    return backbone
