"""Tiny backbones of every supported kind, with random weights."""

from mmpretrain.models import SwinTransformer, TIMMBackbone, VisionTransformer

BACKBONES = {
    'vit': lambda **options: VisionTransformer(
        dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=128),
        img_size=32,
        patch_size=8,
        **options,
    ),
    'swin': lambda **options: SwinTransformer(
        dict(embed_dims=16, depths=[2, 2], num_heads=[2, 2]),
        img_size=32,
        patch_size=2,
        window_size=4,
        drop_path_rate=0.0,
        out_indices=(1,),
        **options,
    ),
    'timm-vit': lambda **options: TIMMBackbone(
        'vit_tiny_patch16_224',
        img_size=32,
        patch_size=8,
        embed_dim=32,
        depth=2,
        num_heads=2,
        **options,
    ),
    'timm-swin': lambda **options: TIMMBackbone(
        'swin_tiny_patch4_window7_224',
        img_size=32,
        patch_size=2,
        embed_dim=16,
        depths=(2, 2),
        num_heads=(2, 2),
        window_size=4,
        drop_path_rate=0.0,
        **options,
    ),
}


def evaluating(backbone):
    """The backbone in evaluation mode; MMPretrain's ``eval()`` returns None."""
    backbone.eval()
    return backbone
