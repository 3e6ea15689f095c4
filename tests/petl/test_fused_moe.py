"""The mixture as one kernel: on a GPU where there is one, else by Triton's interpreter."""

import os
import subprocess
import sys

import pytest
import torch

from gleam_mm.layouts import Grid
from gleam_mm.petl import fused_moe
from gleam_mm.petl import moe as moe_file
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


@pytest.fixture(autouse=True)
def exact_convolutions(monkeypatch):
    """No TF32 in what it is compared with."""
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)


def both(grid, channels, top_k, experts, training, dtype=torch.float32):
    """Outputs and gradients of PyTorch's operations and of the kernel."""
    torch.manual_seed(0)
    moe = ConvMoE(channels, experts, top_k, noise_floor=0.01).to(DEVICE).train(training)
    z = torch.randn(3, grid.tokens, channels, device=DEVICE, requires_grad=True)
    grad = torch.randn_like(z)
    noise = torch.randn(3, experts, device=DEVICE) if training else None
    wanted = (z, moe.kernels, moe.gate, *((moe.noise,) if training else ()))

    moe.fused = False
    kernels, router = moe.mixture()
    plain = moe._gate_images(z, grid, moe.mixture(), noise)
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


@pytest.fixture
def pretended_gpu(monkeypatch):
    """This device takes the kernel, as far as the module can tell."""
    monkeypatch.setattr('gleam_mm.petl.moe.fusible', lambda *args: True)
    holds = moe_file._kernel_holds
    holds.cache_clear()
    yield
    holds.cache_clear()


@pytest.mark.parametrize(
    ('kernel', 'why'),
    [
        (lambda z, kernels, router, *_: z * kernels.mean() * router.mean(), 'differs from PyTorch'),
        (lambda *args: 1 / 0, 'ZeroDivisionError'),
    ],
)
def test_a_kernel_that_fails_is_not_used(kernel, why, pretended_gpu, monkeypatch):
    """It is tried once, and PyTorch computes what it cannot."""
    monkeypatch.setattr('gleam_mm.petl.moe.mix_fused', kernel)
    moe = ConvMoE(4)
    z, grid = torch.randn(2, 13, 4), Grid(1, 3, 4)
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match=f'kernel is not used on cpu with float32.*{why}'):
        mixed = moe(z, grid)
    moe.fused = False
    torch.manual_seed(0)
    torch.testing.assert_close(mixed, moe(z, grid), rtol=0, atol=0)


def test_noise_that_is_given_is_not_drawn(pretended_gpu, monkeypatch):
    taken = []
    monkeypatch.setattr(moe_file, '_kernel_holds', lambda *args: True)
    monkeypatch.setattr(moe_file, 'mix_fused', lambda z, *args: taken.append(args[2]) or z)
    moe = ConvMoE(4)
    noise, tokens = torch.randn(2, 4), (torch.randn(2, 13, 4), Grid(1, 3, 4), moe.mixture())
    moe._gate_images(*tokens, noise)
    moe._gate_images(*tokens)
    moe.eval()._gate_images(*tokens)
    assert taken[0] is noise and taken[1].shape == (2, 4) and taken[2] is None


@needs_triton
def test_a_kernel_that_holds_is_used(pretended_gpu, monkeypatch):
    """The check itself lets the true kernel pass, and draws no number that others would get."""
    torch.manual_seed(0)
    assert moe_file._kernel_holds(torch.device(DEVICE, 0), torch.float32, 4)
    drawn = torch.randn(1)
    torch.manual_seed(0)
    assert torch.equal(torch.randn(1), drawn)


@pytest.mark.parametrize(
    'options',
    [dict(expert_bias=True), dict(renormalize=False), dict(balance=0.01), dict(gate='token')],
)
def test_what_it_cannot_do_is_left_to_pytorch(options, pretended_gpu, monkeypatch):
    moe = ConvMoE(4, **options)
    monkeypatch.setattr('gleam_mm.petl.moe.mix_fused', None)  # calling it would fail
    assert moe(torch.randn(2, 13, 4), Grid(1, 3, 4)).shape == (2, 13, 4)


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETS, reason='an interpreter compiles nothing')
@pytest.mark.parametrize('noisy', [True, False])
@pytest.mark.parametrize('numbers', ['fp32', 'bf16', 'fp16'])
@pytest.mark.parametrize('architecture', [80, 90])
def test_it_compiles(noisy, numbers, architecture):
    """For GPUs that need not be there, with the largest blocks."""
    triton = pytest.importorskip('triton')
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from gleam_mm.petl import fused_moe_kernels

    constants = dict(tokens=577, experts=4, top_k=4, noisy=noisy, noise_floor=0.0, prefix=1)
    block = 128 if numbers == 'fp32' else 256
    constants |= dict(block_tokens=block, block_channels=32, block_experts=4)
    single = ('slopes_out', 'slopes_in', *(('noise',) if noisy else ()))
    for function in (fused_moe_kernels.forward, fused_moe_kernels.backward):
        kinds = {}
        for name in function.arg_names:
            if name in constants:
                kinds[name] = 'constexpr'
            elif name in ('height', 'width', 'channels'):
                kinds[name] = 'i32'
            else:
                kinds[name] = '*fp32' if name in single else f'*{numbers}'
        known = {(i,): constants[n] for i, n in enumerate(function.arg_names) if n in constants}
        source = ASTSource(fn=function, signature=kinds, constexprs=known)
        target = GPUTarget('cuda', architecture, 32)
        made = triton.compile(source, target=target, options=dict(num_warps=8))
        assert made.asm['cubin']
        assert made.metadata.shared <= 99 * 1024  # what GPUs for consumers have


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
    assert '17 passed' in told.stdout, told.stdout
