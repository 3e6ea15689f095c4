"""Arithmetic is counted as by hand, whichever of PyTorch's calls it is done by."""

import arithmetic
import cost
import pytest
import tabular
import torch
from contenders import BACKBONES, CONTENDERS
from counting import Arithmetic
from torch.nn import functional as F

from gleam_mm.config import methods

M, K, N = 6, 5, 4


@pytest.mark.parametrize(
    'product',
    [
        lambda a, b: a @ b,
        lambda a, b: F.linear(a, b.T.contiguous()),
        lambda a, b: torch.addmm(a.new_zeros(N), a, b),
        lambda a, b: a.new_zeros(M, N).addmm_(a, b, alpha=2.0),
        lambda a, b: torch.einsum('ij,jk->ik', a, b),
        lambda a, b: [a @ column for column in b.unbind(1)],
    ],
    ids=['mm', 'linear', 'addmm', 'in place', 'einsum', 'mv'],
)
def test_a_product_has_its_multiplications(product):
    with Arithmetic() as counted:
        product(torch.ones(M, K), torch.ones(K, N))
    assert counted.total == 2 * M * K * N


@pytest.mark.parametrize('groups', [1, 3])
def test_a_grouped_convolution_and_its_gradients(groups):
    images = torch.ones(2, 6, 5, 5, requires_grad=True)
    weight = torch.ones(12, 6 // groups, 3, 3, requires_grad=True)
    forwards = 2 * 2 * 25 * 12 * (6 // groups) * 9
    with Arithmetic() as counted:
        convolved = F.conv2d(images, weight, padding=1, groups=groups)
    assert counted.total == forwards
    with Arithmetic() as counted:
        convolved.sum().backward()
    assert counted.total == 2 * forwards


@pytest.mark.parametrize('device', ['cpu', 'meta'])
def test_attention_on_a_cpu_as_elsewhere(device):
    tokens = torch.empty(2, 3, 7, 4, device=device)
    with Arithmetic() as counted:
        F.scaled_dot_product_attention(tokens, tokens, tokens)
    assert counted.total == 2 * 2 * (2 * 3 * 7 * 7 * 4)


@pytest.mark.parametrize('mode', arithmetic.MODES)
def test_gleam_by_hand(mode):
    """What it adds to the limit: its products, convolutions, gates and kernels, and gradients."""
    backbone, size, batch = BACKBONES['vit-mini'], 32, 3
    rank, experts, width, tokens, blocks = 16, 4, 64, 17, 2
    images = torch.empty(batch, 3, size, size, device='meta')
    names = 'limit', 'gleam-l'
    limit, gleam = (
        arithmetic.operations(CONTENDERS[name].build(backbone, size).to('meta'), images, mode)
        for name in names
    )
    read_and_written = (1 + 3) + (1 + 1) + (1 + 4) + (4 + 1)
    products = tokens * rank * width * read_and_written
    convolution = (tokens - 1) * rank * rank * 9
    class_token = rank * rank
    kernels = experts * rank * rank * 9
    if mode == 'evaluation':
        gate = rank * experts
        mixture = convolution + class_token + kernels + gate
        assert gleam - limit == 2 * blocks * (products + 4 * mixture)
        return
    gate = rank * 2 * experts  # with the noise's
    mixture = convolution + class_token + kernels + gate
    # Outputs and two gradients of each. What the first qkv reads has a gradient in the limit alone.
    per_image = 3 * blocks * (products + 4 * mixture) - tokens * width * (3 * width + rank)
    # For all images together: local transforms with A or B, and the folding by constants.
    transforms = rank * rank * width * (3 + 1 + 4 + 4) * blocks
    folding = experts * rank * rank * 9 * 9
    assert gleam - limit == 2 * (per_image + (3 * transforms + 2 * folding) / batch)


def test_a_file_gives_back_the_counts_and_the_table_their_ratios(tmp_path):
    found = [
        arithmetic.Count('vit-s', 'limit', 'training', 100),
        arithmetic.Count('vit-s', 'gleam-l', 'training', 107),
    ]
    tabular.write(tmp_path / 'arithmetic.csv', ((count,) for count in found), arithmetic.Count)
    assert arithmetic.read(tmp_path / 'arithmetic.csv') == found
    assert '| gleam-l | 1.070 |' in arithmetic.markdown(found)


@pytest.mark.slow
def test_the_map_of_methods_has_what_is_counted():
    """But for those whose cost hangs on the image, which `skipping.py` counts."""
    vit = cost.backbone()
    told = {
        entry.preset: entry.cost
        for entry in methods.entries()
        if entry.merges != 'yes' and entry.preset not in ('dyt', 'coda')
    }
    assert {'gleam-l', 'mola', 'adapter', 'vpt-deep'} <= told.keys()
    counted = {preset: cost.extra(preset, vit) for preset in told}
    assert counted == pytest.approx(told, abs=0.0051)
