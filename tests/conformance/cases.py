"""The rows and columns of the conformance matrix: every method, and what every backbone is made of.

Nothing here is taken from the code under test: the closed formulas count from papers, and from the
shapes of the four backbones as they are written down below.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from backbones import BACKBONES, NECKS, evaluating
from mmengine.registry import DefaultScope

from gleam_mm.registry import MODELS

NUM_CLASSES = 3
ANY_SIZE = {
    'vit': {},
    'swin': {},
    'timm-vit': dict(dynamic_img_size=True),
    'timm-swin': dict(strict_img_size=False),
}
"""What makes a backbone take images of other sizes than it was built for."""


@dataclass(frozen=True)
class Shape:
    """What the closed formulas count over.

    Attributes:
        depths: Width of a stage's tokens -> number of its blocks.
        embedding: Parameters of the patch embedding's convolution, class token and positions.
        biases: Biases outside of the blocks.
        extra: Other parameters outside of the blocks and of the final norm's 2 d.
        block_extra: Parameters of a block that are no Linear's and no norm's.
        pixels: Side of a patch.
    """

    depths: Mapping[int, int]
    biases: int
    extra: int
    block_extra: int
    pixels: int

    @property
    def widths(self) -> list[int]:
        """The token width of each block."""
        return [width for width, depth in self.depths.items() for _ in range(depth)]

    @property
    def first(self) -> int:
        """Width of the first stage."""
        return self.widths[0]

    @property
    def last(self) -> int:
        """Width of the last stage."""
        return self.widths[-1]

    def each_block(self, count: Callable[[int], int]) -> int:
        """The sum over blocks of a count by width."""
        return sum(count(width) for width in self.widths)

    def each_stage(self, count: Callable[[int], int]) -> int:
        """The sum over stages of a count by width."""
        return sum(count(width) for width in self.depths)


# Patches of 8 x 8 x 3 numbers, 16 of them and a class token with positions.
_VIT = Shape({32: 2}, 32 + 32, 192 * 32 + 32 + 32 + 17 * 32, 0, 8)
# Patches of 2 x 2 x 3 numbers with a norm, a merging with a norm; tables of relative positions.
_SWIN = Shape(
    {16: 2, 32: 2},
    16 + 16 + 64 + 32,
    12 * 16 + 16 + 2 * 16 + 2 * 64 + 64 * 32,
    49 * 2,
    2,
)
SHAPES = {'vit': _VIT, 'swin': _SWIN, 'timm-vit': _VIT, 'timm-swin': _SWIN}


@dataclass(frozen=True)
class Case:
    """A row of the matrix.

    Attributes:
        name: What the table calls it.
        petl: The config of the method.
        count: Number of trained parameters, by the method's paper.
        identity: Whether the method claims to start as the pretrained model.
        merges: Whether it claims to fold into the backbone's weights.
        gaps: Check, or ``(check, kind of backbone)`` -> why it cannot pass.
    """

    name: str
    petl: Mapping
    count: Callable[[Shape], int]
    identity: bool = True
    merges: bool = False
    gaps: Mapping[str | tuple[str, str], str] = field(default_factory=dict)

    def gap(self, check: str, kind: str) -> str | None:
        """Why a check cannot pass, or None where it has to."""
        return self.gaps.get(check) or self.gaps.get((check, kind))


def ladder(rank: int, local: bool = False, experts: int = 0) -> Callable[[Shape], int]:
    """Two projections a stage, 12 d x d matrices a block, n experts and their gate."""

    def count(shape: Shape) -> int:
        own = shape.each_block(lambda _: 12 * rank**2) if local else 0
        mixture = 9 * experts * rank**2 + 2 * rank * experts
        return shape.each_stage(lambda width: 2 * width * rank) + own + mixture

    return count


def lokr(rank: int) -> Callable[[Shape], int]:
    """LoKr on qkv: the Kronecker product of a small full matrix and a large low-rank one.

    Widths are split in two factors as close to each other as they come, the small one first.
    """

    def split(width: int) -> tuple[int, int]:
        small = max(n for n in range(1, width + 1) if width % n == 0 and n * n <= width)
        return small, width // small

    def count(width: int) -> int:
        (small_in, large_in), (small_out, large_out) = split(width), split(3 * width)
        return small_out * small_in + rank * (large_out + large_in)

    return lambda shape: shape.each_block(count)


def train(rows: int, columns: int, rank: int) -> int:
    """A tensor train of a matrix whose sides are cut as written down."""
    factors = {4: [2, 2], 16: [4, 4], 32: [4, 8], 48: [6, 8], 96: [8, 12]}
    first, *inner, last = factors[rows] + factors[columns]
    return rank * (first + last) + rank**2 * sum(inner)


def hf_peft(**config: object) -> dict:
    """A tuner of HF PEFT on qkv."""
    return dict(type='HFPeft', config=config, sites=['qkv'])


def whole(shape: Shape) -> int:
    """All of a backbone."""
    blocks = shape.each_block(lambda d: 12 * d * d + 13 * d + shape.block_extra)
    return shape.extra + blocks + 2 * shape.last


CASES = [
    Case('Full tuning', dict(type='FullTuning'), whole, merges=True),
    Case('Linear probing', dict(type='LinearProbe'), lambda shape: 0, merges=True),
    Case(
        'LoRA',
        dict(type='LoRA', rank=4, sites=['qkv', 'fc2']),
        lambda shape: shape.each_block(lambda d: 4 * (d + 3 * d) + 4 * (4 * d + d)),
        merges=True,
    ),
    Case(
        'BitFit',
        dict(type='BitFit'),
        lambda shape: shape.each_block(lambda d: 11 * d + shape.block_extra) + shape.biases,
        merges=True,
    ),
    Case(
        'VPT-shallow',
        dict(type='VPT', num_prompts=3, deep=False),
        lambda shape: 3 * shape.first,
        identity=False,
    ),
    Case(
        'VPT-deep',
        dict(type='VPT', num_prompts=3),
        lambda shape: shape.each_block(lambda d: 3 * d),
        identity=False,
    ),
    Case(
        'Adapter',
        dict(type='Adapter', bottleneck=4),
        lambda shape: shape.each_block(lambda d: 8 * d + 4 + d),
    ),
    Case(
        'Adapter, two a block',
        dict(type='Adapter', bottleneck=4, sites=['proj', 'fc2']),
        lambda shape: shape.each_block(lambda d: 2 * (8 * d + 4 + d)),
    ),
    Case(
        'AdaptFormer',
        dict(type='AdaptFormer', bottleneck=4),
        lambda shape: shape.each_block(lambda d: 8 * d + 4 + d),
    ),
    Case(
        'Convpass',
        dict(type='Convpass', bottleneck=4, scale=0.5),
        lambda shape: shape.each_block(lambda d: 2 * (8 * d + 4 + d + 9 * 16 + 4)),
    ),
    Case(
        'RepAdapter',
        dict(type='RepAdapter', rank=4, groups=2, scale=0.5),
        lambda shape: shape.each_block(lambda d: 2 * (4 * d + 4 + 2 * d + d)),
        merges=True,
    ),
    Case(
        'SSF',
        dict(type='SSF'),
        lambda shape: shape.each_block(lambda d: 22 * d) + 2 * shape.first + 2 * shape.last,
        identity=False,
        merges=True,
    ),
    Case(
        'GLoRA, supernet',
        dict(type='GLoRA', rank=2),
        lambda shape: shape.each_block(lambda d: 2 * (39 * d + 4) + 18 * d),
        gaps={'gradients': 'a supernet trains one of its subnets in a step, three in three'},
    ),
    Case(
        'GLoRA, a subnet',
        dict(type='GLoRA', rank=2, subnet=dict(A='vector', B='low-rank', C='vector', E='scalar')),
        lambda shape: shape.each_block(lambda d: 9 * d + 2 * 16 * d + 7 * d + 4),
        merges=True,
    ),
    Case(
        'NOAH, supernet',
        dict(type='NOAH', sizes=[1, 3]),
        lambda shape: shape.each_block(lambda d: 3 * d + 4 * 3 * d + 2 * 3 * d + 3 + d),
        identity=False,
        gaps={'gradients': 'a supernet trains one of its subnets in a step, three in three'},
    ),
    Case(
        'NOAH, a subnet',
        dict(type='NOAH', subnet=dict(prompts=2, lora=3, adapter=1)),
        lambda shape: shape.each_block(lambda d: 2 * d + 4 * 3 * d + 2 * d + 1 + d),
        identity=False,
    ),
    Case(
        'HF PEFT: DoRA',
        hf_peft(peft_type='LORA', r=4, use_dora=True),
        lambda shape: shape.each_block(lambda d: 4 * (d + 3 * d) + 3 * d),
        merges=True,
    ),
    Case(
        'HF PEFT: VeRA',
        hf_peft(peft_type='VERA', r=8),
        lambda shape: shape.each_block(lambda d: 8 + 3 * d),
        merges=True,
    ),
    Case(
        'HF PEFT: IA3',
        hf_peft(peft_type='IA3'),
        lambda shape: shape.each_block(lambda d: 3 * d),
        merges=True,
    ),
    Case(
        'HF PEFT: OFT',
        hf_peft(peft_type='OFT', r=0, oft_block_size=8),
        lambda shape: shape.each_block(lambda d: d // 8 * (8 * 7 // 2)),
        merges=True,
    ),
    Case(
        'HF PEFT: LoHa',
        hf_peft(peft_type='LOHA', r=4),
        lambda shape: shape.each_block(lambda d: 2 * 4 * (d + 3 * d)),
        merges=True,
    ),
    Case('HF PEFT: LoKr', hf_peft(peft_type='LOKR', r=2), lokr(2), merges=True),
    Case(
        'HF PEFT: RandLoRA',
        hf_peft(peft_type='RANDLORA', r=8, randlora_alpha=8),
        lambda shape: shape.each_block(lambda d: 8 * (d // 8) + d // 8 * d),
        merges=True,
    ),
    Case(
        'HF PEFT: VB-LoRA',
        hf_peft(peft_type='VBLORA', r=2, num_vectors=8, vector_length=16),
        lambda shape: 8 * 16 + shape.each_block(lambda d: 2 * (d + 3 * d) // 16 * 8),
        identity=False,
        merges=True,
    ),
    Case(
        'HF PEFT: RoAd',
        hf_peft(peft_type='ROAD', group_size=8),
        lambda shape: shape.each_block(lambda d: 3 * d),
        merges=True,
    ),
    Case(
        'HF PEFT: C3A',
        hf_peft(peft_type='C3A', block_size=16, init_weights=True),
        lambda shape: shape.each_block(lambda d: 3 * d * d // 16),
        merges=True,
    ),
    Case(
        'HF PEFT: HRA',
        hf_peft(peft_type='HRA', r=2),
        lambda shape: shape.each_block(lambda d: 2 * d),
        merges=True,
    ),
    Case(
        'HF PEFT: FourierFT',
        hf_peft(peft_type='FOURIERFT', n_frequency=20, scaling=10.0, init_weights=True),
        lambda shape: shape.each_block(lambda d: 20),
        merges=True,
    ),
    Case(
        'HF PEFT: PVeRA',
        hf_peft(peft_type='PVERA', r=8),
        lambda shape: shape.each_block(lambda d: 2 * 8 + 3 * d),
        merges=True,
    ),
    Case(
        'HF PEFT: BOFT',
        hf_peft(peft_type='BOFT', boft_block_size=8),
        lambda shape: shape.each_block(lambda d: d // 8 * 8**2 + 3 * d),
        merges=True,
    ),
    Case(
        'HF PEFT: HiRA',
        hf_peft(peft_type='HIRA', r=4),
        lambda shape: shape.each_block(lambda d: 4 * (d + 3 * d)),
        merges=True,
    ),
    Case(
        'HF PEFT: MiSS',
        hf_peft(peft_type='MISS', r=4),
        lambda shape: shape.each_block(lambda d: 4 * 3 * d),
        merges=True,
    ),
    Case('SLoRA', dict(type='SLoRA', rank=4, alpha=0.5), ladder(4), merges=True),
    Case('FacT-TT', dict(type='FacT', rank=4, alpha=0.5), ladder(4, local=True), merges=True),
    Case(
        'FacT-TK',
        dict(type='FacT', form='tk', rank=4, alpha=0.5),
        lambda shape: (
            ladder(4)(shape) + shape.each_block(lambda _: 12 * 4) + shape.each_stage(lambda _: 4**3)
        ),
        merges=True,
    ),
    Case('GLEAM', dict(type='GLEAM', rank=4, alpha=0.5), ladder(4, local=True, experts=4)),
    Case(
        'GLEAM, k = 1',
        dict(type='GLEAM', rank=4, top_k=1),
        ladder(4, local=True, experts=4),
        gaps={'gradients': 'a softmax over one expert is 1, so that nothing reaches the gate'},
    ),
    Case(
        'GLEAM, wired otherwise',
        dict(type='GLEAM', rank=4, gate='token', moe_side='wide', expert_init='identity'),
        ladder(4, local=True, experts=4),
    ),
    Case(
        'GLEAM, as Conv-LoRA',
        dict(
            type='GLEAM',
            rank=4,
            residual=1.0,
            gate_init='zero',
            noise_floor=0.01,
            balance=0.01,
            expert_bias=True,
        ),
        lambda shape: ladder(4, local=True, experts=4)(shape) + 4 * 4,
    ),
    Case(
        'GLEAM, starting as FacT',
        dict(
            type='GLEAM',
            rank=4,
            local_init='uniform',
            normalize=True,
            renormalize=False,
            top_k=1,
            scales=[1, 2, 4, 8],
        ),
        ladder(4, local=True, experts=4),
    ),
    Case(
        'GLEAM without MoE',
        dict(type='GLEAM', rank=4, alpha=0.5, moe=False),
        ladder(4, local=True),
        merges=True,
    ),
    Case(
        'Adapter+',
        dict(type='AdapterPlus', bottleneck=4),
        lambda shape: shape.each_block(lambda d: 8 * d + 4 + 2 * d),
        identity=False,
    ),
    Case(
        'Hydra',
        dict(type='Hydra', rank=2, scale=0.5),
        lambda shape: shape.each_block(lambda d: 11 * 2 * d + 4 * 2 + 4 * d),
        merges=True,
    ),
    Case(
        'DTL+',
        dict(type='DTL', rank=2, start=0, kernel=3),
        lambda shape: shape.each_block(lambda d: 4 * d) + shape.each_stage(lambda d: 9 * d),
    ),
    Case(
        'AdapterBias',
        dict(type='AdapterBias'),
        lambda shape: shape.each_block(lambda d: 2 * d + 1),
        merges=True,
    ),
    Case(
        'ARC',
        dict(type='ARC', rank=4),
        lambda shape: (
            shape.each_stage(lambda d: 2 * 4 * d) + shape.each_block(lambda d: 2 * (4 + d))
        ),
        merges=True,
    ),
    Case(
        'RLRR',
        dict(type='RLRR'),
        lambda shape: shape.each_block(lambda d: 31 * d),
        merges=True,
    ),
    Case(
        'Consolidator',
        dict(type='Consolidator', groups=8),
        lambda shape: shape.each_block(lambda d: 12 * d * d // 8 + 9 * d),
        merges=True,
    ),
    Case(
        'LoRA with a frozen A',
        dict(type='LoRA', rank=4, init='orthogonal', train_down=False),
        lambda shape: shape.each_block(lambda d: 4 * 3 * d),
        merges=True,
    ),
    Case(
        'LoRA from PiSSA',
        dict(type='LoRA', rank=4, init='pissa'),
        lambda shape: shape.each_block(lambda d: 4 * (d + 3 * d)),
        merges=True,
    ),
    Case(
        'MLAE',
        dict(type='MLAE', rank=4, expert_drop_rate=0.25, sites=['qkv']),
        lambda shape: shape.each_block(lambda d: 4 * (d + 3 * d) + 4),
        merges=True,
    ),
    Case(
        'DyLoRA',
        dict(type='DyLoRA', rank=4),
        lambda shape: shape.each_block(lambda d: 4 * (d + 3 * d)),
        merges=True,
    ),
    Case(
        'MSPLoRA',
        dict(type='MSPLoRA', ranks=[3, 2, 1], groups=2),
        # Either part of a ViT is one block, of a Swin one stage.
        lambda shape: (
            shape.each_stage(lambda d: 3 * 4 * d)
            + 2 * 4 * (shape.first + shape.last)
            + shape.each_block(lambda d: 4 * d)
        ),
        merges=True,
    ),
    Case(
        'VFPT',
        dict(type='VPT', num_prompts=3, fourier=0.5),
        lambda shape: shape.each_block(lambda d: 3 * d),
        identity=False,
    ),
    Case(
        'ETHER+',
        dict(type='ETHERPlus'),
        lambda shape: shape.each_block(lambda d: 2 * 7 * d + 2 * 9 * d),
        merges=True,
    ),
    Case(
        'LoReFT',
        dict(type='LoReFT', rank=4),
        lambda shape: shape.each_block(lambda d: 8 * d + 4),
    ),
    Case(
        'R-Adapter',
        dict(type='RAdapter', rank=4),
        lambda shape: shape.each_block(lambda d: 2 * (8 * d + 1)),
        merges=True,
    ),
    Case(
        'KAdaptation',
        dict(type='KAdaptation', number=4),
        lambda shape: 4 * 4**2 + shape.each_block(lambda d: 5 * d),
        merges=True,
    ),
    Case(
        'SCT',
        dict(type='SCT', number=8),
        lambda shape: shape.each_block(lambda _: 8 * 8 + 8),
        merges=True,
    ),
    Case('AdaLink', dict(type='AdaLink', rank=4), lambda shape: 2 * 4 * shape.first),
    Case(
        'SURM',
        dict(type='SURM'),
        lambda shape: shape.each_block(lambda d: 3 * (2 * d - 1)),
        merges=True,
    ),
    Case(
        'GateVPT',
        dict(type='VPT', num_prompts=3, deep=False, gate=0.0),
        lambda shape: 3 * shape.first + len(shape.widths) - 1,
        identity=False,
    ),
    Case(
        'Prefix tuning',
        dict(type='PrefixTuning', number=3),
        lambda shape: shape.each_block(lambda d: 2 * 3 * d),
        identity=False,
    ),
    Case(
        'E2VPT',
        dict(type='E2VPT', num_prompts=3, num_keys=2),
        lambda shape: shape.each_block(lambda d: (3 + 2) * d),
        identity=False,
    ),
    Case(
        'Compose: RepAdapter, LoRA, SSF',
        dict(
            type='Compose',
            methods=[
                dict(type='RepAdapter', rank=4, groups=2, scale=0.5),
                dict(type='LoRA', rank=4),
                dict(type='SSF'),
            ],
        ),
        lambda shape: (
            shape.each_block(lambda d: 2 * (4 * d + 4 + 2 * d + d) + 4 * (d + 3 * d) + 22 * d)
            + 2 * shape.first
            + 2 * shape.last
        ),
        identity=False,
        merges=True,
    ),
    Case(
        'Compose: GLEAM and VPT',
        dict(
            type='Compose',
            methods=dict(
                prompts=dict(type='VPT', num_prompts=3, deep=False),
                gleam=dict(type='GLEAM', rank=4),
            ),
        ),
        lambda shape: 3 * shape.first + ladder(4, local=True, experts=4)(shape),
        identity=False,
    ),
    Case(
        'Compose: LoRA beside a frozen Adapter',
        dict(
            type='Compose',
            methods=dict(old=dict(type='Adapter', bottleneck=4), new=dict(type='LoRA', rank=4)),
            frozen=['old'],
        ),
        lambda shape: shape.each_block(lambda d: 4 * (d + 3 * d)),
    ),
    Case(
        'AdapterFusion',
        dict(
            type='AdapterFusion',
            methods=dict(
                a=dict(type='AdapterPlus', bottleneck=4), b=dict(type='AdapterPlus', bottleneck=3)
            ),
            rank=4,
        ),
        lambda shape: shape.each_block(lambda d: 2 * (4 * d + 4) + d * d),
        identity=False,
    ),
    Case(
        'Arrow',
        dict(
            type='Arrow',
            methods=dict(a=dict(type='LoRA', rank=4), b=dict(type='LoRA', rank=3)),
            top_k=2,
        ),
        lambda shape: 0,
    ),
    Case(
        'EigenLoRAx',
        dict(type='EigenLoRA', components=6, rank=4),
        lambda shape: shape.each_block(lambda d: 2 * 6 * 4),
        merges=True,
    ),
    Case(
        'LoRA, 1 bit',
        dict(type='LoRA', rank=4, bits=1),
        lambda shape: shape.each_block(lambda d: 4 * (d + 3 * d)),
        merges=True,
    ),
    Case(
        'GLEAM, 4 bits',
        dict(type='GLEAM', rank=4, alpha=0.5, bits=4),
        ladder(4, local=True, experts=4),
    ),
    Case(
        'NeuroAda',
        dict(type='SparseTuning', k=2),
        lambda shape: shape.each_block(lambda d: 2 * 9 * d),
        merges=True,
    ),
    Case(
        'GPS without biases',
        dict(type='SparseTuning', select='gradient'),
        lambda shape: shape.each_block(lambda d: 9 * d),
        merges=True,
    ),
    Case(
        'LT-SFT',
        dict(type='LTSFT', number=500),
        lambda shape: 500,
        merges=True,
    ),
    Case(
        'SPT-LoRA',
        dict(type='SPT', budget=2000, rank=2),
        lambda shape: 2000,
        merges=True,
    ),
    Case(
        'SPT-Adapter',
        dict(type='SPT', form='adapter', budget=2000, rank=2),
        lambda shape: 2000,
    ),
    Case(
        'DyT',
        dict(type='DyT', bottleneck=4),
        lambda shape: shape.each_block(lambda d: 8 * d + 4 + d + d + 1),
        identity=False,
    ),
    Case(
        'CoDA',
        dict(type='CoDA', bottleneck=4),
        lambda shape: shape.each_block(lambda d: 8 * d + 4 + d + d + 1),
        identity=False,
        gaps={
            ('gradients', kind): 'a class token reads no patch behind the last block, whose gate '
            'does nothing for it'
            for kind in ('vit', 'timm-vit')
        },
    ),
    Case(
        'MoLA',
        dict(type='MoLA', rank=2, experts=[2, 3]),
        lambda shape: sum(
            (2 + (index >= len(shape.widths) // 2)) * (2 * (d + 3 * d) + d)
            for index, d in enumerate(shape.widths)
        ),
    ),
    Case(
        'MoKA',
        dict(type='Kronecker', number=3, size=4, gate=True),
        lambda shape: shape.each_block(lambda d: 3 * (4**2 + 3 * d * d // 4**2) + 3),
        merges=True,
    ),
    Case(
        'SoKA',
        dict(type='Kronecker', number=3, size=4, init='svd'),
        lambda shape: shape.each_block(lambda d: 3 * (4**2 + 3 * d * d // 4**2)),
        merges=True,
    ),
    Case(
        'ABBA',
        dict(type='ABBA', rank=2, alpha=2.0),
        lambda shape: shape.each_block(lambda d: 2 * 2 * (d + 3 * d)),
        merges=True,
    ),
    Case(
        'READ',
        dict(type='READ', hidden=4),
        lambda shape: 3 * 4 * (shape.last + 4 + 2) + 2 * shape.last + 4 * shape.last + shape.last,
    ),
    Case(
        'LoRETTA, rep',
        dict(type='LoRETTA', rank=4, tensor_rank=2),
        lambda shape: shape.each_block(lambda d: train(4, d, 2) + train(3 * d, 4, 2)),
        merges=True,
    ),
    Case(
        'LoRETTA, adp',
        dict(type='LoRETTA', form='adp', rank=4, tensor_rank=2),
        lambda shape: shape.each_block(lambda d: 2 * (train(4, d, 2) + train(d, 4, 2) + 4 + d)),
    ),
    Case(
        'MoSA',
        dict(type='MoSA', bottleneck=4, experts=2),
        lambda shape: shape.each_block(lambda d: 8 * d + 4 + d),
    ),
    Case(
        'ILA',
        dict(type='ILA', bottleneck=4),
        lambda shape: shape.each_block(lambda d: 8 * d + 2 * 4 + d + 10 * 8 + 2 * 4 * 4),
    ),
    Case(
        'MoA',
        dict(
            type='Compose',
            methods=[
                dict(type='LoRA', rank=4, gate=True),
                dict(type='AdaptFormer', bottleneck=4, gate=True),
            ],
        ),
        lambda shape: shape.each_block(lambda d: 4 * (d + 3 * d) + d + 1 + 8 * d + 4 + d + d + 1),
    ),
    Case(
        'HF PEFT: SHiRA',
        hf_peft(peft_type='SHIRA', r=2),
        lambda shape: shape.each_block(lambda d: 2 * (d + 3 * d)),
        merges=True,
        gaps={'compile': "PEFT's SHiRA makes a sparse tensor, which torch.compile cannot trace"},
    ),
    Case(
        'LoRA in the last block',
        dict(type='LoRA', rank=4, blocks=[-1]),
        lambda shape: 4 * (shape.last + 3 * shape.last),
        merges=True,
    ),
]


def make_images(number: int) -> torch.Tensor:
    """Images that are no squares, so that height and width cannot be taken for each other.

    They fill 3 x 5 patches of a ViT, 12 x 20 of a Swin, which its second stage has to pad.
    """
    return torch.randn(number, 3, 24, 40)


def build_backbone(kind: str) -> torch.nn.Module:
    """A tiny backbone; the same weights each time."""
    torch.manual_seed(0)
    return evaluating(BACKBONES[kind](**ANY_SIZE[kind]))


def build_classifier(case: Case, kind: str, seed: int = 0) -> torch.nn.Module:
    """A classifier in evaluation mode on :func:`build_backbone`'s backbone.

    Args:
        case: The method.
        kind: The backbone.
        seed: Decides the weights of method and head.
    """
    backbone = build_backbone(kind)
    torch.manual_seed(seed)
    config = dict(
        type='PETLClassifier',
        backbone=backbone,
        neck=NECKS[kind],
        head=dict(type='LinearClsHead', in_channels=SHAPES[kind].last, num_classes=NUM_CLASSES),
        petl=dict(case.petl),
    )
    with DefaultScope.overwrite_default_scope('gleam_mm'):
        return evaluating(MODELS.build(config))


def randomize(method: torch.nn.Module) -> None:
    """Moves every parameter of a method off its start, as training does or has done before."""
    with torch.no_grad():
        trained = dict(method.trainable_parameters()).values()
        frozen = [p for p in method.parameters() if not p.requires_grad]
        for parameter in (*trained, *frozen):
            parameter.add_(0.1 * torch.randn_like(parameter))


def logits(classifier: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    """What the head says."""
    return classifier.head(classifier.extract_feat(images))
