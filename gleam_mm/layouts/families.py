"""Families of vision transformers, a row each: which class it is, and where its blocks are.

A row says what the names of a family's modules do not say by themselves. The rest follows from
conventions that libraries share, and what follows is proved when a method is attached (see
:mod:`gleam_mm.petl.probe`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn


@dataclass(frozen=True)
class Family:
    """A class of backbones.

    Attributes:
        model: The class by its full name, which is not imported; subclasses are included.
        blocks: Paths of the transformer blocks; a ``*`` stands for one name between dots.
        late: Those of blocks where the class tokens meet the grid for the first time.
        names: Role of a Linear by its own name, where it is not one of :data:`ROLE_OF_NAME`.
        by_weight: Paths in a block of Linears whose weight is multiplied by without a call.
        attention: Path in a block of an ``nn.MultiheadAttention`` of one sequence, which is
            computed by steps.
        channels_first: Whether blocks read and write images (B, C, H, W).
        post_norm: Whether norms stand behind attention and FFN, not in front of them.
        apart: Whether queries, keys and values are thirds of what ``qkv`` writes, one behind the
            other; in some they alternate head by head.
        no_grid: Why the tokens in its blocks form no grid, if they do not.
        prefix: Tokens in front of the grid, where the model has no ``num_prefix_tokens``.
        no_blocks: Why methods cannot adapt what whole blocks read and write, if they cannot.
        squares: Names of modules in a block whose sequences are squares, whatever the image.
    """

    model: str
    blocks: tuple[str, ...]
    late: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    by_weight: tuple[str, ...] = ()
    attention: str = ''
    channels_first: bool = False
    post_norm: bool = False
    apart: bool = True
    no_grid: str = ''
    prefix: int | None = None
    squares: tuple[str, ...] = ()
    no_blocks: str = ''


ROLE_OF_NAME = {
    **dict.fromkeys(('qkv', 'qk', 'kv', 'q', 'k', 'v'), 'qkv'),
    **dict.fromkeys(('q_proj', 'k_proj', 'v_proj', 'in_proj', 'wq', 'wk', 'wv'), 'qkv'),
    **dict.fromkeys(('proj', 'out_proj', 'o_proj', 'attn_out_proj'), 'proj'),
    **dict.fromkeys(('fc1', 'fc1_g', 'fc1_x', 'w12', 'lin1', 'gate_proj', 'up_proj'), 'fc1'),
    **dict.fromkeys(('fc2', 'w3', 'lin2', 'down_proj', 'mlp_out_proj'), 'fc2'),
}
"""The role of a Linear in a transformer block by its name, as libraries give it."""

PARTS_OF_NAME = {
    **dict.fromkeys(('qkv', 'in_proj'), ('q', 'k', 'v')),
    **{'qk': ('q', 'k'), 'kv': ('k', 'v')},
    **dict.fromkeys(('q', 'q_proj', 'wq', 'query'), ('q',)),
    **dict.fromkeys(('k', 'k_proj', 'wk', 'key'), ('k',)),
    **dict.fromkeys(('v', 'v_proj', 'wv', 'value'), ('v',)),
}
"""Which of queries, keys and values a Linear writes, one behind the other, by its name."""

POSITIONS = ('rel_pos', 'cpb_mlp', 'meta_mlp', 'rope')
"""Names of networks inside of an attention that see positions, not tokens."""

_UNROLLED = 'they stand in the order of its mask units, not row by row'
_NESTED = 'they are sorted into image blocks'
_TWO_SEQUENCES = 'they carry two sequences, of patches and of pixels'

TIMM = (
    Family('beit.Beit', ('blocks.*',), by_weight=('attn.qkv',)),
    Family('cait.Cait', ('blocks.*',), late=('blocks_token_only.*',), prefix=1),
    Family('coat.CoaT', ('serial_blocks*.*',), prefix=1),
    Family('convit.ConVit', ('blocks.*',), prefix=1),
    Family('convnext.ConvNeXt', ('stages.*.blocks.*',), channels_first=True),
    Family('crossvit.CrossVit', ('blocks.*.blocks.*.*',), prefix=1),
    Family('deepseek_vit.DeepseekVitClassifier', ('encoder.blocks.*',)),
    Family('davit.DaVit', ('stages.*.blocks.*.*',), channels_first=True),
    Family('edgenext.EdgeNeXt', ('stages.*.blocks.*',), channels_first=True),
    Family('efficientformer.EfficientFormer', ('stages.*.blocks.*',), apart=False),
    Family('eva.Eva', ('blocks.*',), by_weight=('attn.qkv',)),
    Family('fastvit.FastVit', ('stages.*.blocks.*',), channels_first=True),
    Family('focalnet.FocalNet', ('layers.*.blocks.*',), channels_first=True, post_norm=True),
    Family('gemma4_vit.Gemma4VitClassifier', ('encoder.blocks.*',)),
    Family('gcvit.GlobalContextVit', ('stages.*.blocks.*',)),
    Family('hiera.Hiera', ('blocks.*',), no_grid=_UNROLLED),
    Family('hieradet_sam2.HieraDet', ('blocks.*',)),
    Family('levit.Levit', ('stages.*.blocks.*',), names={'ln1': 'fc1', 'ln2': 'fc2'}, apart=False),
    Family('maxxvit.MaxxVit', ('stages.*.blocks.*.attn_*',), apart=False),
    Family('metaformer.MetaFormer', ('stages.*.blocks.*',)),
    Family('byobnet.ByobNet', ('stages.*.*.transformer.*',)),
    Family('mvitv2.MultiScaleVit', ('stages.*.blocks.*',)),
    Family('naflexvit.NaFlexVit', ('blocks.*',)),
    Family('nest.Nest', ('levels.*.transformer_encoder.*',), no_grid=_NESTED),
    Family('nextvit.NextViT', ('stages.*.blocks.*',), channels_first=True),
    Family('pit.PoolingVisionTransformer', ('transformers.*.blocks.*',), prefix=1),
    Family('qwen3_vit.Qwen3VitClassifier', ('encoder.blocks.*',)),
    Family('pvt_v2.PyramidVisionTransformerV2', ('stages.*.blocks.*',)),
    Family(
        'swin_transformer_v2.SwinTransformerV2',
        ('layers.*.blocks.*',),
        by_weight=('attn.qkv',),
        post_norm=True,
    ),
    Family('swin_transformer_v2_cr.SwinTransformerV2Cr', ('stages.*.blocks.*',), post_norm=True),
    Family('tiny_vit.TinyVit', ('stages.*.blocks.*',), apart=False),
    Family(
        'tnt.TNT',
        ('blocks.*',),
        prefix=1,
        squares=('attn_in', 'mlp_in'),
        no_blocks=_TWO_SEQUENCES,
    ),
    Family('twins.Twins', ('blocks.*.*',)),
    Family(
        'vision_transformer.VisionTransformer',
        ('blocks.*',),
        names={'mlp.w0': 'fc1', 'mlp.w1': 'fc1', 'mlp.w2': 'fc2'},  # ViTamin's GeGLU
    ),
    Family('vision_transformer_relpos.VisionTransformerRelPos', ('blocks.*',)),
    Family('vision_transformer_sam.VisionTransformerSAM', ('blocks.*',), prefix=0),
    Family('volo.VOLO', ('network.*.*',), late=('post_network.*',), prefix=1),
    Family('xcit.Xcit', ('blocks.*',), late=('cls_attn_blocks.*',), prefix=1),
)
"""Those of timm, by names below ``timm.models``."""


_FFN = {'layers.0.0': 'fc1', 'layers.1': 'fc2'}
_SWIGLU = {'w12': 'fc1', 'w3': 'fc2'}
_POINTWISE = {
    'pointwise_conv1': 'fc1',
    'pointwise_conv2': 'fc2',
    'pwconv1': 'fc1',
    'pwconv2': 'fc2',
}
_NOT_CALLED = {'out_proj': ''}  # of nn.MultiheadAttention, which multiplies by its weights

MMPRETRAIN = (
    Family('beit.BEiTViT', ('layers.*',), names=_FFN, by_weight=('attn.qkv',)),
    Family('convnext.ConvNeXt', ('stages.*.*',), names=_POINTWISE, channels_first=True),
    Family('davit.DaViT', ('stages.*.blocks.*.*_block',), names=_FFN),
    Family('edgenext.EdgeNeXt', ('stages.*.*',), names=_POINTWISE, channels_first=True),
    Family('efficientformer.EfficientFormer', ('network.*.*',), apart=False),
    Family('hivit.HiViT', ('blocks.*',), no_grid='its stem keeps them in patches of patches'),
    Family('hornet.HorNet', ('stages.*.*',), names=_POINTWISE, channels_first=True),
    Family('mixmim.MixMIMTransformer', ('layers.*.blocks.*',), names=_FFN),
    Family('mobilevit.MobileViT', ('layers.*.*.global_rep.*',), names=_FFN),
    Family('mvit.MViT', ('blocks.*',)),
    Family(
        'swin_transformer_v2.SwinTransformerV2',
        ('stages.*.blocks.*',),
        names=_FFN,
        by_weight=('attn.w_msa.qkv',),
        post_norm=True,
    ),
    Family('t2t_vit.T2T_ViT', ('encoder.*',), names=_FFN),
    Family('tinyvit.TinyViT', ('stages.*.blocks.*',), apart=False),
    Family(
        'tnt.TNT',
        ('layers.*',),
        names={**_FFN, **_NOT_CALLED},
        prefix=1,
        squares=('inner_block',),
        no_blocks=_TWO_SEQUENCES,
    ),
    Family('twins.PCPVT', ('stages.*.*',), names=_FFN),
    Family('vision_transformer.VisionTransformer', ('layers.*',), names={**_FFN, **_SWIGLU}),
    Family('vit_sam.ViTSAM', ('layers.*',), names=_FFN, prefix=0),
    Family('xcit.XCiT', ('xca_layers.*',), late=('ca_layers.*',), names=_FFN, prefix=1),
)
"""Those of MMPretrain, by names below ``mmpretrain.models.backbones``."""


def _transformers(model: str, *blocks: str, prefix: int) -> Family:
    """A family whose models are also parts of others, such as of classifiers."""
    return Family(
        model, (*blocks, *(f'*.{path}' for path in blocks)), names=_TRANSFORMERS, prefix=prefix
    )


_TRANSFORMERS = {  # as they were called before the release 5
    **{'query': 'qkv', 'key': 'qkv', 'value': 'qkv', 'attention.output.dense': 'proj'},
    **{'intermediate.dense': 'fc1', 'output.dense': 'fc2'},
}
_BERT_LIKE = ('layers.*', 'encoder.layer.*')

TRANSFORMERS = (
    _transformers('beit.modeling_beit.BeitPreTrainedModel', *_BERT_LIKE, prefix=1),
    Family(
        'clip.modeling_clip.CLIPPreTrainedModel',
        ('encoder.layers.*', 'vision_model.encoder.layers.*'),
        prefix=1,
    ),
    _transformers('deit.modeling_deit.DeiTPreTrainedModel', *_BERT_LIKE, prefix=2),
    _transformers('dinov2.modeling_dinov2.Dinov2PreTrainedModel', 'encoder.layer.*', prefix=1),
    _transformers(
        'dinov2_with_registers.modeling_dinov2_with_registers.Dinov2WithRegistersPreTrainedModel',
        'encoder.layer.*',
        prefix=1,
    ),
    Family(
        'siglip.modeling_siglip.SiglipPreTrainedModel',
        ('encoder.layers.*', 'vision_model.encoder.layers.*'),
        prefix=0,
    ),
    _transformers('swin.modeling_swin.SwinPreTrainedModel', 'encoder.layers.*.blocks.*', prefix=0),
    _transformers('vit.modeling_vit.ViTPreTrainedModel', *_BERT_LIKE, prefix=1),
)
"""Those of transformers, by names below ``transformers.models``."""

_MLP = {'mlp.0': 'fc1', 'mlp.3': 'fc2'}

TORCHVISION = (
    Family(
        'swin_transformer.SwinTransformer',
        ('features.*.*',),
        names=_MLP,
        by_weight=('attn.qkv', 'attn.proj'),
    ),
    Family(
        'vision_transformer.VisionTransformer',
        ('encoder.layers.*',),
        names=_MLP,
        attention='self_attention',
        prefix=1,
    ),
)
"""Those of torchvision, by names below ``torchvision.models``."""


def family_of(model: nn.Module) -> Family | None:
    """The row of a model, by its class or the next of its base classes that has one."""
    for cls in type(model).__mro__:
        name = f'{cls.__module__}.{cls.__qualname__}'
        if name in _BY_CLASS:
            return _BY_CLASS[name]
    return None


_BY_CLASS = {
    **{f'timm.models.{family.model}': family for family in TIMM},
    **{f'mmpretrain.models.backbones.{family.model}': family for family in MMPRETRAIN},
    **{f'transformers.models.{family.model}': family for family in TRANSFORMERS},
    **{f'torchvision.models.{family.model}': family for family in TORCHVISION},
}
