"""SLoRA, FacT-TT and GLEAM against the formula of their rung, and their parameter counts."""

from functools import partial

import pytest
import torch
from backbones import BACKBONES, evaluating
from literal import mixture
from mmpretrain.models import SwinTransformer, VisionTransformer

from gleam_mm.petl import GLEAM, FacT, SLoRA

WIRINGS = {
    'token': dict(gate='token'),
    'wide': dict(moe_side='wide'),
    'wide, token': dict(moe_side='wide', gate='token'),
}
# As Conv-LoRA has its mixture, and FacT its transforms.
LINEAGE = dict(
    expert_bias=True, residual=1.0, gate_init='zero', noise_floor=0.01, balance=0.01,
    local_init='uniform', drop_rate=0.1,
)  # fmt: skip
METHODS = {
    'SLoRA': lambda **options: SLoRA(rank=4, **options),
    'FacT': lambda **options: FacT(rank=4, **options),
    'GLEAM': lambda **options: GLEAM(rank=4, top_k=2, **options),
    'GLEAM without local': lambda **options: GLEAM(rank=4, top_k=2, local=False, **options),
    **{
        f'GLEAM, {name}': partial(GLEAM, rank=4, top_k=2, **options)
        for name, options in WIRINGS.items()
    },
    'GLEAM without local, wide': partial(GLEAM, rank=4, top_k=2, local=False, moe_side='wide'),
    'GLEAM of its lineage': partial(GLEAM, rank=4, top_k=2, **LINEAGE),
    'GLEAM of its lineage, wide': partial(GLEAM, rank=4, top_k=2, moe_side='wide', **LINEAGE),
}


def randomize(method):
    for parameter in method.parameters():
        torch.nn.init.normal_(parameter, std=0.3)


def literal_update(method, site, x, grid, moe_side='narrow', gate='image', drop=lambda z: z):
    """B L_s MoE A x, with A and B applied block by block and L_s as a convolution on all tokens."""
    projection = method.shared['projections'][str(site.stage)]
    blocks_in = x.unflatten(-1, (site.blocks_in, site.width))
    z = (blocks_in @ projection.down.T).flatten(-2)  # (B, N, c_i r)
    r = method.rank
    if site.key in method.local:
        weight = method.local[site.key].weight  # (c_o, c_i, r, r)
        kernel = torch.cat([torch.cat(list(row), dim=1) for row in weight])  # (c_o r, c_i r)
    else:
        kernel = torch.eye(r, dtype=x.dtype).repeat(site.blocks_out, site.blocks_in)

    def mix(tokens):
        if 'mixer' not in method.shared:
            return tokens
        moe = method.shared['mixer']
        weights = (moe.kernels, moe.scales, moe.gate, moe.noise, moe.top_k)
        options = dict(decides=gate, biases=moe.biases, residual=moe.residual)
        blocks = tokens.split(r, dim=-1)  # one on the narrow side
        return torch.cat([mixture(z, grid, *weights, **options) for z in blocks], dim=-1)

    local_first = (site.blocks_in > site.blocks_out) == (moe_side == 'narrow')
    z = mix(z @ kernel.T) if local_first else mix(z) @ kernel.T
    return (drop(z).unflatten(-1, (site.blocks_out, r)) @ projection.up.T).flatten(-2)


def visit_sites(method, backbone, images):
    """Runs an attached method in double precision, with random parameters.

    Returns:
        For each site: itself, its input, its frozen and its adapted output, and the token grid.
    """
    seen = []

    def spy(site, module, args, output):
        frozen = torch.nn.functional.linear(args[0], module.weight, module.bias)
        seen.append((site, args[0], frozen, output, method.layout.grid(site)))

    method.attach(backbone.double())
    randomize(method.double().eval())
    sites = method.layout.sites(method.roles)
    for site in sites:
        site.module.register_forward_hook(partial(spy, site))
    with torch.no_grad():
        backbone(images.double())
    assert [site for site, *_ in seen] == sites
    return seen


def wiring(name):
    """What :func:`literal_update` must know of a method, by its name."""
    return {
        'moe_side': 'wide' if 'wide' in name else 'narrow',
        'gate': 'token' if 'token' in name else 'image',
    }


@pytest.mark.parametrize('name', METHODS)
def test_every_site_follows_the_formula(name, backbone, images):
    method = METHODS[name](alpha=0.5)
    for site, x, frozen, adapted, grid in visit_sites(method, backbone, images):
        expected = frozen + 0.5 * literal_update(method, site, x, grid, **wiring(name))
        torch.testing.assert_close(adapted, expected, rtol=1e-10, atol=1e-10, msg=site.name)


@pytest.mark.parametrize('name', METHODS)
@pytest.mark.parametrize('kind', ['vit', 'swin'])
def test_gradients_follow_the_formula(name, kind, images):
    method = METHODS[name](alpha=0.5)
    for site, x, frozen, _, grid in visit_sites(method, evaluating(BACKBONES[kind]()), images):
        # Not the class token's zeros, between which a gate may choose as it likes.
        x = torch.randn_like(x).requires_grad_(True)
        weights = torch.randn_like(frozen)
        leaves = [x, *method.parameters()]
        mine, literal = (
            torch.autograd.grad((update * weights).sum(), leaves, materialize_grads=True)
            for update in (
                method.adapt(site, x, torch.zeros_like(frozen)),
                0.5 * literal_update(method, site, x, grid, **wiring(name)),
            )
        )
        torch.testing.assert_close(mine, literal, rtol=1e-10, atol=1e-9, msg=site.name)


@pytest.mark.parametrize('name', METHODS)
@pytest.mark.parametrize('kind', ['vit', 'swin'])
def test_dropout_is_before_the_last_projection(name, kind, images, monkeypatch):
    """With a mask that is drawn by place; PyTorch draws in the order of the memory."""

    def drop(z, rate=0.3):
        mask = torch.rand(z.shape, generator=torch.Generator().manual_seed(2)) > rate
        return z * mask / (1 - rate)

    method = METHODS[name](alpha=0.5)
    for site, x, frozen, _, grid in visit_sites(method, evaluating(BACKBONES[kind]()), images):
        method.drop_rate, method.training = 0.3, True  # while the mixture's gate is not noisy
        with monkeypatch.context() as patched:
            patched.setattr(torch.nn.functional, 'dropout', drop)
            mine = method.adapt(site, x, torch.zeros_like(frozen))
        literal = 0.5 * literal_update(method, site, x, grid, **wiring(name), drop=drop)
        torch.testing.assert_close(mine, literal, rtol=1e-10, atol=1e-10, msg=site.name)


def test_local_transforms_start_like_linears(backbone):
    """Which is how FacT's official code starts them: U(+-1 / sqrt(r c_in))."""
    method = FacT(rank=16, local_init='uniform')
    method.attach(backbone)
    for site in method.layout.sites(method.roles):
        weight = method.local[site.key].weight.detach()
        linear = torch.nn.Linear(16 * site.blocks_in, 16 * site.blocks_out, bias=False).weight
        assert weight.numel() == linear.numel()
        torch.testing.assert_close(weight.std(), linear.std(), rtol=0.15, atol=0)
        bound = 1 / (16 * site.blocks_in) ** 0.5
        assert 0.9 * bound < weight.abs().max() <= bound
    method.detach()


def test_balance_is_a_loss_of_the_method(vit, images):
    gleam = GLEAM(4, top_k=1, balance=0.01, noise_floor=0.01)
    gleam.attach(vit)
    vit.train()
    vit(images)
    losses = gleam.losses()
    losses['balance'].backward()
    assert gleam.shared['mixer'].gate.grad.abs().max() > 0
    assert gleam.losses() == {'balance': 0}
    vit(images)
    gleam.begin()  # the next pass: nobody took the losses of the last one
    assert gleam.losses() == {'balance': 0}
    assert GLEAM(4).losses() == GLEAM(4, moe=False, balance=0.01).losses() == {}


def count(method, backbone):
    method.attach(backbone)
    number = sum(parameter.numel() for parameter in method.parameters())
    method.detach()
    return number


def test_parameters_on_vit_b():
    with torch.device('meta'):
        vit = VisionTransformer('b')
        assert [count(GLEAM(rank), vit) for rank in (4, 8, 16)] == [9_056, 23_872, 70_784]
        assert [count(FacT(rank), vit) for rank in (4, 8, 16)] == [8_448, 21_504, 61_440]
        assert count(SLoRA(8), vit) == 2 * 768 * 8
        for options in WIRINGS.values():
            assert count(GLEAM(16, **options), vit) == 70_784
        assert count(GLEAM(16, **LINEAGE), vit) == 70_848  # biases in experts


def test_parameters_on_swin_b():
    swin = SwinTransformer('b')
    assert [count(GLEAM(rank), swin) for rank in (16, 20)] == [144_512, 206_560]


@pytest.mark.parametrize('n', [2, 3, 5])
def test_parameters_follow_the_closed_formula(n, vit):
    d, depth, r = 32, 2, 4
    expected = 2 * d * r + 12 * depth * r**2 + 9 * n * r**2 + 2 * r * n
    assert count(GLEAM(r, num_experts=n), vit) == expected


def test_rungs_are_options_of_gleam(vit, images):
    """GLEAM without its mixture is FacT-TT, without local transforms as well SLoRA."""
    for option, rung in [(dict(moe=False), FacT), (dict(moe=False, local=False), SLoRA)]:
        ablated, method = GLEAM(4, **option), rung(4)
        method.attach(vit)
        randomize(method)
        expected = vit(images)[0]
        method.detach()
        ablated.attach(vit)
        ablated.load_state_dict(method.state_dict())
        assert torch.equal(vit(images)[0], expected)
        ablated.detach()


@pytest.mark.parametrize('moe_side', ['narrow', 'wide'])
@pytest.mark.parametrize('gate', ['image', 'token'])
def test_identity_experts_start_on_the_rung_below(moe_side, gate, backbone, images):
    """Whatever the gate's noise: all its choices are the identity."""
    gleam = GLEAM(4, moe_side=moe_side, gate=gate, expert_init='identity')
    below = GLEAM(4, moe=False)
    below.attach(backbone)
    randomize(below)
    expected = backbone(images)[-1]
    below.detach()
    gleam.attach(backbone)
    gleam.load_state_dict(below.state_dict(), strict=False)
    torch.testing.assert_close(backbone(images)[-1], expected, rtol=1e-4, atol=1e-5)


def test_attention_only(vit):
    method = GLEAM(4, sites=('qkv', 'proj'))
    method.attach(vit)
    assert all('attn' in key for key in method.local)


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: GLEAM(rank=0), 'rank=0'),
        (lambda: GLEAM(rank=2.5), 'rank=2.5'),
        (lambda: GLEAM(top_k=9), 'top_k=9 is out of range: choose 1 to 4'),
        (lambda: SLoRA(rank=-1), 'rank=-1'),
        (lambda: GLEAM(gate='pixel'), "gate='pixel': choose 'image' or 'token'"),
        (lambda: GLEAM(moe_side='left'), "moe_side='left': choose 'narrow' or 'wide'"),
        (lambda: GLEAM(expert_init=0), "expert_init=0: choose 'kaiming' or 'identity'"),
        (lambda: GLEAM(gate_init=0), "gate_init=0: choose 'uniform' or 'zero'"),
        (lambda: GLEAM(local_init=0), "local_init=0: choose 'identity' or 'uniform'"),
        (lambda: FacT(local_init='zero'), "local_init='zero': choose 'identity' or 'uniform'"),
    ],
)
def test_bad_options_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_rank_beyond_the_width_is_named(vit):
    with pytest.raises(ValueError, match='rank=33 exceeds the token width 32'):
        GLEAM(rank=33).attach(vit)


def odd(hidden=100):
    arch = dict(embed_dims=32, num_layers=1, num_heads=2, feedforward_channels=hidden)
    return evaluating(VisionTransformer(arch, img_size=32, patch_size=8))


@torch.no_grad()
def test_the_last_block_of_an_odd_width_is_cut():
    """As if the hidden units that lack were there, with weights of zero on both sides."""
    cut, whole = odd(100), odd(128)
    state = cut.state_dict()
    for name, tensor in whole.state_dict().items():
        part = tensor[tuple(slice(size) for size in state[name].shape)]
        tensor.zero_()
        part.copy_(state[name])
    names = ('layers.0.ffn.layers.0.0', 'layers.0.ffn.layers.1')
    x, hidden = torch.randn(2, 17, 32), torch.randn(2, 17, 100)
    for method in (GLEAM(rank=4, sites=('fc1', 'fc2')), SLoRA(rank=4, sites=('fc1', 'fc2'))):
        randomize(method)
        method.attach(cut)
        cut(images := torch.randn(2, 3, 32, 32))
        randomize(method)
        found = [cut.get_submodule(n)(z) for n, z in zip(names, (x, hidden), strict=True)]
        counted = sum(p.numel() for p in method.parameters())
        method.detach()
        method.attach(whole)
        whole(images)
        padded = torch.nn.functional.pad(hidden, (0, 28))
        expected = [whole.get_submodule(n)(z) for n, z in zip(names, (x, padded), strict=True)]
        torch.testing.assert_close(found[0], expected[0][..., :100])
        torch.testing.assert_close(found[1], expected[1])
        assert counted == sum(p.numel() for p in method.parameters())
        method.detach()


def test_whole_blocks_cannot_be_mixed_where_one_is_cut():
    with pytest.raises(ValueError, match=r"moe_side='wide' .* maps 32 to 100, is cut"):
        GLEAM(rank=4, moe_side='wide').attach(odd())
    GLEAM(rank=4, moe_side='wide', sites=('qkv', 'proj')).attach(odd())
