"""The mixture as one kernel: on a GPU where there is one, else by Triton's interpreter."""

import os
import subprocess
import sys

import pytest
import torch

from gleam_mm.layouts import Grid
from gleam_mm.petl import fused_moe
from gleam_mm.petl.moe import ConvMoE

CARD = torch.cuda.is_available()
DEVICE = 'cuda' if CARD else 'cpu'
INTERPRETS = os.environ.get('TRITON_INTERPRET') == '1'

needs_triton = pytest.mark.skipif(
    not (CARD or INTERPRETS), reason='needs a GPU, or the interpreter, as the last test here has it'
)

CASES = [
    # grid, channels, top_k, experts
    (Grid(1, 3, 4), 4, 4, 4),
    (Grid(0, 4, 4), 16, 2, 4),
    (Grid(1, 3, 5, 2), 8, 1, 3),
    (Grid(5, 17, 16), 20, 4, 4),  # more tokens, and channels, than a block has
]


def both(grid, channels, top_k, experts, training, dtype=torch.float32):
    """Outputs and gradients of PyTorch's operations and of the kernel."""
    torch.manual_seed(0)
    moe = ConvMoE(channels, experts, top_k, noise_floor=0.01).to(DEVICE).train(training)
    z = torch.randn(3, grid.tokens, channels, device=DEVICE, requires_grad=True)
    grad = torch.randn_like(z)
    noise = torch.randn(3, experts, device=DEVICE) if training else None
    wanted = (z, moe.kernels, moe.gate, *((moe.noise,) if training else ()))

    def drawn(like):
        return noise.to(like)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, 'randn_like', drawn)
        moe.fused = False
        plain = moe(z, grid)
    kernels, router = moe.mixture()
    choice = fused_moe.Choice(top_k, 0.01)
    fused = fused_moe.mix_fused(
        z.to(dtype), kernels.to(dtype), router.to(dtype), noise, grid, choice
    )
    fused = fused.float()
    return zip(
        (fused, *torch.autograd.grad(fused, wanted, grad)),
        (plain, *torch.autograd.grad(plain, wanted, grad)),
        strict=True,
    )


@needs_triton
@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('case', CASES)
def test_it_is_the_same_mixture(case, training):
    for fused, plain in both(*case, training):
        torch.testing.assert_close(fused, plain, rtol=1e-4, atol=1e-5)


@needs_triton
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_in_half_precision(dtype):
    if dtype is torch.bfloat16 and not CARD:
        pytest.skip('the interpreter has no bfloat16')
    for fused, plain in both(*CASES[0], True, dtype):
        assert (fused - plain).norm() < (0.005 if dtype is torch.float16 else 0.04) * plain.norm()


@pytest.mark.skipif(not CARD, reason='needs a GPU')
@pytest.mark.parametrize('training', [True, False])
def test_a_gpu_takes_it(training, monkeypatch):
    """The module itself computes by the kernel, with the noise that it would draw without."""
    moe = ConvMoE(8).to(DEVICE).train(training)
    z, grid = torch.randn(4, 50, 8, device=DEVICE), Grid(1, 7, 7)
    torch.manual_seed(1)
    fused = moe(z, grid)
    monkeypatch.setattr(moe, 'fused', False)
    torch.manual_seed(1)
    torch.testing.assert_close(fused, moe(z, grid), rtol=1e-4, atol=1e-5)
    calls = []
    monkeypatch.setattr(moe, 'fused', True)
    monkeypatch.setattr('gleam_mm.petl.moe.mix_fused', lambda z, *args: calls.append(args) or z)
    moe(z, grid)
    assert len(calls) == 1


@pytest.mark.parametrize(
    'options',
    [dict(expert_bias=True), dict(renormalize=False), dict(balance=0.01), dict(gate='token')],
)
def test_what_it_cannot_do_is_left_to_pytorch(options, monkeypatch):
    moe = ConvMoE(4, **options)
    monkeypatch.setattr('gleam_mm.petl.moe.fusible', lambda *args: True)
    monkeypatch.setattr('gleam_mm.petl.moe.mix_fused', None)  # calling it would fail
    assert moe(torch.randn(2, 13, 4), Grid(1, 3, 4)).shape == (2, 13, 4)


@pytest.mark.slow
@pytest.mark.skipif(CARD or INTERPRETS, reason='the tests above have run')
def test_by_the_interpreter():
    pytest.importorskip('triton')
    told = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', __file__],
        env=os.environ | {'TRITON_INTERPRET': '1'},
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0, told.stdout
    assert '13 passed' in told.stdout, told.stdout
