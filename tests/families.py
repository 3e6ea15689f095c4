"""Tiny models of every family of vision transformers that has a layout, with random weights."""

import copy
from functools import partial

import timm
import transformers
from torchvision.models import VisionTransformer, swin_transformer

from gleam_mm.layouts.wrapped import LibraryBackbone
from gleam_mm.registry import MODELS

_PLAIN = dict(img_size=(24, 40), patch_size=8, embed_dim=32, depth=2, num_heads=2)
_SWIN = dict(
    img_size=(32, 48), patch_size=2, embed_dim=16, depths=(2, 2), num_heads=(2, 2), window_size=4
)

TIMM = {
    'vit': ('vit_tiny_patch16_224', _PLAIN),
    'vit-dinov2': ('vit_small_patch14_reg4_dinov2', _PLAIN),
    'vit-siglip': ('vit_base_patch16_siglip_224', _PLAIN),
    'vit-clip': ('vit_base_patch16_clip_224', _PLAIN),
    'vit-parallel': ('vit_small_patch16_36x1_224', _PLAIN),
    'vit-things': ('vit_small_patch16_18x2_224', _PLAIN),
    'vit-22b': ('vit_base_patch16_xp_224', _PLAIN),
    'deit3': ('deit3_base_patch16_224', _PLAIN),
    'deit-distilled': ('deit_tiny_distilled_patch16_224', _PLAIN),
    'dinov2-giant': ('vit_giant_patch14_dinov2', _PLAIN),
    'relpos': ('vit_relpos_base_patch16_224', _PLAIN),
    'srelpos': ('vit_srelpos_small_patch16_224', _PLAIN),
    'sam': (
        'samvit_base_patch16_224',
        dict(_PLAIN, img_size=(32, 48), window_size=2, global_attn_indexes=(1,), neck_chans=16),
    ),
    'eva': ('eva_giant_patch14_224', _PLAIN),
    'eva02': ('eva02_base_patch14_224', _PLAIN),
    'eva02-tiny': ('eva02_tiny_patch14_224', _PLAIN),
    'dinov3': ('vit_small_patch16_dinov3', _PLAIN),
    'dinov3-plus': ('vit_small_plus_patch16_dinov3', _PLAIN),
    'pe': ('vit_pe_core_base_patch16_224', _PLAIN),
    'rope': ('vit_base_patch16_rope_reg1_gap_256', _PLAIN),
    'beit': ('beit_base_patch16_224', _PLAIN),
    'beitv2': ('beitv2_base_patch16_224', _PLAIN),
    'cait': ('cait_xxs24_224', _PLAIN),
    'convit': ('convit_tiny', dict(_PLAIN, img_size=32)),
    'xcit': ('xcit_tiny_12_p8_224', _PLAIN),
    'naflex': ('naflexvit_base_patch16_gap', _PLAIN),
    'swin': (
        'swin_tiny_patch4_window7_224',
        _SWIN,
    ),
    'swinv2': (
        'swinv2_tiny_window8_256',
        _SWIN,
    ),
    'swinv2-cr': (
        'swinv2_cr_tiny_ns_224',
        _SWIN,
    ),
    'hiera': (
        'hiera_tiny_224',
        dict(img_size=(64, 96), embed_dim=16, stages=(1, 1, 1, 1), num_heads=1),
    ),
    'sam2-hiera': (
        'sam2_hiera_tiny',
        dict(
            embed_dim=16,
            stages=(1, 1, 2, 1),
            global_att_blocks=(3,),
            window_spec=(4, 4, 2, 2),
            global_pos_size=(4, 4),
        ),
    ),
    'mvitv2': ('mvitv2_tiny', dict(img_size=64)),
    'pvtv2': (
        'pvt_v2_b0',
        dict(depths=(1, 1, 1, 1), embed_dims=(16, 16, 32, 32), num_heads=(1, 1, 2, 2)),
    ),
    'davit': (
        'davit_tiny',
        dict(depths=(1, 1), embed_dims=(16, 32), num_heads=(2, 2), window_size=4),
    ),
    'tinyvit': (
        'tiny_vit_5m_224',
        dict(
            depths=(1, 2, 1, 1),
            embed_dims=(16, 16, 32, 32),
            num_heads=(2, 2, 2, 2),
            window_sizes=(4, 4, 4, 2),
        ),
    ),
    'convnext': ('convnext_atto', dict(depths=(1, 1, 1, 1), dims=(16, 16, 32, 32), conv_mlp=False)),
    'convnextv2': (
        'convnextv2_atto',
        dict(depths=(1, 1, 1, 1), dims=(16, 16, 32, 32), conv_mlp=False),
    ),
    'twins-svt': (
        'twins_svt_small',
        dict(
            depths=(2, 2, 2, 2),
            embed_dims=(16, 16, 32, 32),
            num_heads=(2, 2, 2, 2),
            wss=(4, 4, 4, 2),
            img_size=(64, 96),
        ),
    ),
    'twins-pcpvt': (
        'twins_pcpvt_small',
        dict(
            depths=(1, 1, 1, 1),
            embed_dims=(16, 16, 32, 32),
            num_heads=(2, 2, 2, 2),
            img_size=(64, 96),
        ),
    ),
    'volo': ('volo_d1_224', dict(img_size=(64, 96))),
    'gcvit': ('gcvit_xxtiny', dict(img_size=(64, 96))),
    'maxvit': ('maxvit_rmlp_nano_rw_256', dict(img_size=(64, 96))),
    'coatnet': ('coatnet_0_rw_224', dict(img_size=(64, 96))),
    'nest': ('nest_tiny', dict(img_size=64)),
    'pit': (
        'pit_ti_224',
        dict(img_size=(64, 96), base_dims=(16, 16, 16), depth=(1, 1, 1), heads=(1, 2, 4)),
    ),
    'levit': ('levit_128s', dict(img_size=(64, 96), depth=(1, 1, 1))),
    'coat': (
        'coat_lite_tiny',
        dict(
            img_size=64,
            crpe_window={3: 1, 5: 1},
            serial_depths=(1, 1, 1, 1),
            embed_dims=(16, 16, 32, 32),
            num_heads=2,
        ),
    ),
    'crossvit': (
        'crossvit_9_240',
        dict(
            img_size=240,
            embed_dim=(16, 32),
            depth=((1, 1, 1),),
            num_heads=(2, 2),
            mlp_ratio=(2, 2, 1),
        ),
    ),
    'tnt': (
        'tnt_s_legacy_patch16_224',
        dict(
            img_size=(32, 48),
            embed_dim=32,
            inner_dim=16,
            depth=2,
            num_heads_inner=2,
            num_heads_outer=2,
        ),
    ),
    'focalnet': ('focalnet_tiny_srf', {}),
    'caformer': ('caformer_s18', {}),
    'edgenext': (
        'edgenext_xx_small',
        dict(
            depths=(1, 1, 1, 1),
            dims=(16, 16, 32, 32),
            heads=(2, 2, 2, 2),
            global_block_counts=(0, 1, 1, 1),
        ),
    ),
    'nextvit': ('nextvit_small', {}),
    'efficientformer': ('efficientformer_l1', dict(depths=(1, 1, 1, 1))),
    'vit-hybrid': (
        'vit_tiny_r_s16_p8_224',
        dict(img_size=(64, 96), embed_dim=32, depth=2, num_heads=2),
    ),
    'vitamin': ('vitamin_small_224', dict(img_size=(64, 96), depth=1)),
    'mobilevit': ('mobilevit_xxs', {}),
    'mobilevitv2': ('mobilevitv2_050', {}),
    'deepseek': ('deepseek_vit_412m', _PLAIN),
    'qwen3': ('qwen3_vit_88m', _PLAIN),
    'gemma4': ('gemma4_vit_167m', _PLAIN),
    'fastvit': ('fastvit_sa12', dict(layers=(1, 1, 1, 1))),
}


_ARCH = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=128)
_TALL = dict(img_size=(24, 40), patch_size=8)
_STAGES = dict(channels=[16, 16, 32, 32], depths=[1, 2, 2, 2], num_heads=[2, 2, 2, 2])

MMPRETRAIN = {
    'vit': dict(type='VisionTransformer', arch=_ARCH, **_TALL),
    'vit-swiglu': dict(
        type='VisionTransformer',
        arch=dict(_ARCH, feedforward_channels=96),
        layer_cfgs=dict(ffn_type='swiglu_fused'),
        **_TALL,
    ),
    'deit3': dict(type='DeiT3', arch=_ARCH, **_TALL),
    'deit-distilled': dict(type='DistilledVisionTransformer', arch=_ARCH, **_TALL),
    'beit': dict(type='BEiTViT', arch=_ARCH, **_TALL),
    'eva02': dict(type='ViTEVA02', arch=dict(_ARCH, feedforward_channels=85), **_TALL),
    'sam': dict(
        type='ViTSAM',
        arch=dict(_ARCH, global_attn_indexes=[1]),
        img_size=(32, 48),
        patch_size=8,
        out_channels=16,
        window_size=2,
    ),
    'swin': dict(
        type='SwinTransformer',
        arch=dict(embed_dims=16, depths=[2, 2], num_heads=[2, 2]),
        img_size=(32, 48),
        patch_size=2,
        window_size=4,
        out_indices=(1,),
    ),
    'swinv2': dict(
        type='SwinTransformerV2',
        arch=dict(embed_dims=16, depths=[2, 2], num_heads=[2, 2], extra_norm_every_n_blocks=0),
        img_size=(32, 48),
        patch_size=2,
        window_size=4,
        out_indices=(1,),
    ),
    'hivit': dict(type='HiViT', arch='tiny', img_size=32),
    'mvit': dict(
        type='MViT',
        arch=dict(embed_dims=16, num_layers=3, num_heads=1, downscale_indices=[1]),
        img_size=64,
    ),
    'mixmim': dict(
        type='MixMIMTransformer',
        arch=dict(embed_dims=16, depths=[1, 1, 2, 1], num_heads=[2, 2, 2, 2]),
        img_size=64,
        window_size=[4, 4, 4, 2],
    ),
    't2t': dict(
        type='T2T_ViT',
        img_size=32,
        embed_dims=32,
        num_layers=2,
        t2t_cfg=dict(token_dims=16, use_performer=False),
        layer_cfgs=dict(num_heads=2, feedforward_channels=96),
    ),
    'tnt': dict(
        type='TNT',
        arch=dict(
            embed_dims_outer=32,
            embed_dims_inner=16,
            num_layers=2,
            num_heads_outer=2,
            num_heads_inner=2,
        ),
        img_size=32,
        patch_size=16,
    ),
    'twins-pcpvt': dict(
        type='PCPVT',
        arch=dict(
            embed_dims=[16, 16, 32, 32],
            depths=[1, 1, 1, 1],
            num_heads=[1, 1, 2, 2],
            patch_sizes=[4, 2, 2, 2],
            strides=[4, 2, 2, 2],
            mlp_ratios=[4, 4, 4, 4],
            sr_ratios=[8, 4, 2, 1],
        ),
    ),
    'twins-svt': dict(
        type='SVT',
        arch=dict(
            embed_dims=[16, 16, 32],
            depths=[2, 2, 2],
            num_heads=[1, 1, 2],
            patch_sizes=[4, 2, 2],
            strides=[4, 2, 2],
            mlp_ratios=[4, 4, 4],
            sr_ratios=[4, 2, 1],
            window_sizes=[4, 4, 2],
        ),
        out_indices=(2,),
    ),
    'xcit': dict(type='XCiT', embed_dims=32, depth=2, num_heads=2, **_TALL),
    'davit': dict(
        type='DaViT',
        arch=dict(embed_dims=16, depths=[1, 1], num_heads=[2, 2]),
        window_size=4,
        out_indices=(1,),
    ),
    'tinyvit': dict(
        type='TinyViT',
        arch=dict(channels=[16, 16, 32, 32], num_heads=[2, 2, 2, 2], depths=[1, 1, 1, 1]),
        img_size=(64, 64),
        window_size=[4, 4, 4, 2],
    ),
    'edgenext': dict(type='EdgeNeXt', arch=_STAGES),
    'convnext': dict(type='ConvNeXt', arch=dict(depths=[1] * 4, channels=[16, 16, 32, 32])),
    'mobilevit': dict(type='MobileViT', arch='xx_small'),
    'hornet': dict(type='HorNet', arch='tiny'),
    'efficientformer': dict(type='EfficientFormer', arch='l1'),
}


def build_mmpretrain(family):
    """A backbone of MMPretrain."""
    return MODELS.build(copy.deepcopy(MMPRETRAIN[family]))


def build(family):
    """A model of timm, whose classifier has three classes."""
    name, options = TIMM[family]
    told = dict(input_size=(3, *size_of(f'timm-{family}')))  # where the model does not say it
    return timm.create_model(name, num_classes=3, pretrained_cfg_overlay=told, **options)


_SMALL = dict(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    image_size=32,
    patch_size=8,
)
TRANSFORMERS = {
    'vit': dict(model_type='vit', **_SMALL),
    'dinov2': dict(model_type='dinov2', mlp_ratio=2, **_SMALL),
    'dinov2-registers': dict(model_type='dinov2_with_registers', mlp_ratio=2, **_SMALL),
    'clip': dict(model_type='clip', vision_config=_SMALL),
    'siglip': dict(model_type='siglip', vision_config=_SMALL),
    'deit': dict(model_type='deit', **_SMALL),
    'beit': dict(model_type='beit', **_SMALL),
    'swin': dict(
        model_type='swin',
        image_size=32,
        patch_size=2,
        embed_dim=16,
        depths=[2, 2],
        num_heads=[2, 2],
        window_size=4,
    ),
}
_WINDOWS = dict(
    patch_size=[2, 2],
    embed_dim=16,
    depths=[2, 2],
    num_heads=[2, 2],
    window_size=[4, 4],
    stochastic_depth_prob=0.0,
)
TORCHVISION = {
    'vit': dict(image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64),
    'swin': _WINDOWS,
    'swinv2': dict(
        _WINDOWS,
        block=swin_transformer.SwinTransformerBlockV2,
        downsample_layer=swin_transformer.PatchMergingV2,
    ),
}


def classifier(family):
    """An image classifier of transformers or torchvision, and the path of its last Linear."""
    library, _, name = family.partition('-')
    if library == 'hf':
        options = dict(TRANSFORMERS[name])
        config = transformers.AutoConfig.for_model(options.pop('model_type'), **options)
        own = type(config).__name__.removesuffix('Config')
        return getattr(transformers, f'{own}ForImageClassification')(config), 'classifier'
    if name == 'vit':
        return VisionTransformer(**TORCHVISION[name]), 'heads'
    return swin_transformer.SwinTransformer(**TORCHVISION[name]), 'head'


def build_library(family):
    """A backbone that is such a classifier without its last Linear."""
    if family.startswith('hf-'):
        return MODELS.build(
            dict(type='TransformersBackbone', **TRANSFORMERS[family.removeprefix('hf-')])
        )
    return LibraryBackbone(*classifier(family))


FAMILIES = {
    **{f'timm-{family}': partial(build, family) for family in TIMM},
    **{f'mm-{family}': partial(build_mmpretrain, family) for family in MMPRETRAIN},
    **{f'hf-{family}': partial(build_library, f'hf-{family}') for family in TRANSFORMERS},
    **{f'tv-{family}': partial(build_library, f'tv-{family}') for family in TORCHVISION},
}
LIBRARIES = {
    **{f'timm-{family}': ('timm', options) for family, options in TIMM.items()},
    **{f'mm-{family}': ('MMPretrain', options) for family, options in MMPRETRAIN.items()},
    **{f'hf-{family}': ('transformers', options) for family, options in TRANSFORMERS.items()},
    **{f'tv-{family}': ('torchvision', options) for family, options in TORCHVISION.items()},
}
"""What a model is of, and its options."""


def size_of(family):
    """Height and width of the images for a model."""
    _, options = LIBRARIES[family]
    options = options[1] if isinstance(options, tuple) else options
    if 'efficientformer' in family:
        return 224, 224
    options = options.get('vision_config', options)
    size = options.get('img_size', options.get('image_size', (64, 96)))
    return (size, size) if isinstance(size, int) else size
