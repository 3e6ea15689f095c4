"""Layouts: the only place that knows a class of backbones. A new backbone is one more of them.

>>> @LAYOUTS.register_module()
... class MyLayout(Layout):
...     ...
"""

from gleam_mm.layouts.attention import Attention, join_sequences
from gleam_mm.layouts.base import Layout, OwnClassifier, find_layout
from gleam_mm.layouts.called import InProjection
from gleam_mm.layouts.family_layout import FamilyLayout
from gleam_mm.layouts.pass_state import PassState, within_backward
from gleam_mm.layouts.replacement import ForwardReplacement, Handle
from gleam_mm.layouts.site import LINEAR_ROLES, PART_ROLES, ROLES, Block, Grid, Site, dequantized
from gleam_mm.layouts.swin import WINDOWED_ROLES, SwinLayout, WindowedLayout
from gleam_mm.layouts.timm import TIMMSwinLayout, TIMMViTLayout
from gleam_mm.layouts.timm_backbone import PooledTIMMBackbone, TIMMFeatureMaps, fit_positions
from gleam_mm.layouts.vit import ViTLayout
from gleam_mm.layouts.wrapped import TorchvisionBackbone, TransformersBackbone

__all__ = [
    'LINEAR_ROLES',
    'PART_ROLES',
    'ROLES',
    'WINDOWED_ROLES',
    'Attention',
    'Block',
    'FamilyLayout',
    'ForwardReplacement',
    'Grid',
    'Handle',
    'InProjection',
    'Layout',
    'OwnClassifier',
    'PassState',
    'PooledTIMMBackbone',
    'Site',
    'SwinLayout',
    'TIMMFeatureMaps',
    'TIMMSwinLayout',
    'TIMMViTLayout',
    'TorchvisionBackbone',
    'TransformersBackbone',
    'ViTLayout',
    'WindowedLayout',
    'dequantized',
    'find_layout',
    'fit_positions',
    'join_sequences',
    'within_backward',
]
