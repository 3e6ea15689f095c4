"""Streamed similarities against whole ones, and HSIC against its definition."""

import itertools

import numpy as np
import pytest
import torch

from gleam_mm.analysis.similarity import SimilaritySums, adjacent_mean, unbiased_hsic


def hsic_by_definition(k, l):  # noqa: E741
    """The mean over all ordered quadruples of different images (Song et al., 2012)."""
    tuples = itertools.permutations(range(len(k)), 4)
    return np.mean([k[i, j] * (l[i, j] + l[q, r] - 2 * l[i, q]) for i, j, q, r in tuples])


def streamed(maps, batch_size):
    sums = SimilaritySums(len(maps))
    for start in range(0, len(maps[0]), batch_size):
        sums.update([m[start : start + batch_size] for m in maps])
    return {name: value.numpy() for name, value in sums.result().items()}


@pytest.fixture
def maps():
    """Three layers of one shape, partly alike, and one of another: 12 images."""
    common = torch.randn(12, 5, 3)
    alike = [common + torch.randn(12, 5, 3) for _ in range(3)]
    return [*alike, torch.randn(12, 2, 7)]


@pytest.mark.parametrize('batch_size', [12, 6, 5, 1])
def test_cosine_distance_and_norm_do_not_depend_on_batches(maps, batch_size):
    found = streamed(maps, batch_size)
    whole = [m.flatten(1).double().numpy() for m in maps]
    norms = [np.linalg.norm(m, axis=1) for m in whole]
    np.testing.assert_allclose(found['norm'], [n.mean() for n in norms])
    for i, j in itertools.product(range(4), repeat=2):
        if (i == 3) != (j == 3):
            assert np.isnan(found['cosine'][i, j])
            assert np.isnan(found['l2'][i, j])
            continue
        cosine = np.mean((whole[i] * whole[j]).sum(1) / norms[i] / norms[j])
        distance = np.mean(np.linalg.norm(whole[i] - whole[j], axis=1))
        np.testing.assert_allclose(found['cosine'][i, j], cosine)
        np.testing.assert_allclose(found['l2'][i, j], distance, atol=1e-12)


def test_hsic_is_the_u_statistic():
    grams = torch.stack([m @ m.T for m in torch.randn(2, 6, 4, dtype=torch.float64)])
    found = unbiased_hsic(grams)
    for i, j in itertools.product(range(2), repeat=2):
        expected = hsic_by_definition(grams[i].numpy(), grams[j].numpy())
        np.testing.assert_allclose(found[i, j], expected)


@pytest.mark.parametrize(('batch_size', 'used'), [(12, [12]), (6, [6, 6]), (5, [5, 5])])
def test_cka_is_that_of_minibatches(maps, batch_size, used):
    found = streamed(maps, batch_size)['cka']
    whole = [m.flatten(1).double().numpy() for m in maps]
    totals = np.zeros((4, 4))
    for start, size in zip(np.cumsum([0, *used]), used, strict=False):
        grams = [m[start : start + size] @ m[start : start + size].T for m in whole]
        totals += [[hsic_by_definition(k, l) for l in grams] for k in grams]  # noqa: E741
    own = np.sqrt(np.diagonal(totals))
    np.testing.assert_allclose(found, totals / own / own[:, None])


def test_cka_knows_features_that_are_rotated_scaled_and_shifted():
    x = torch.randn(40, 6)
    rotation = torch.linalg.qr(torch.randn(6, 6))[0]
    found = streamed([x, 3 * x @ rotation + 5, torch.randn(40, 6)], 20)['cka']
    assert found[0, 1] == pytest.approx(1, abs=1e-5)
    assert abs(found[0, 2]) < 0.3


def test_too_few_images_have_no_cka():
    assert np.isnan(streamed([torch.randn(9, 4)] * 2, 3)['cka']).all()


def test_a_map_of_zeros_has_no_direction():
    still = torch.zeros(4, 3)
    half = torch.randn(4, 3)
    half[:2] = 0
    moved = torch.randn(4, 3)
    found = streamed([still, half, moved], 2)
    assert np.isnan(found['cosine'][0]).all()
    seen = torch.cosine_similarity(half[2:], moved[2:]).mean().item()
    assert found['cosine'][1, 2] == pytest.approx(seen, abs=1e-6)
    assert found['l2'][0, 2] == pytest.approx(moved.norm(dim=1).mean().item(), rel=1e-6)


def test_memory_does_not_grow():
    sums = SimilaritySums(3)

    def held():
        return sum(v.numel() for v in vars(sums).values() if isinstance(v, torch.Tensor))

    before = held()
    for _ in range(20):
        sums.update([torch.randn(4, 50) for _ in range(3)])
    assert held() == before == 3 + 5 * 9
    assert not any(isinstance(v, list | dict) for v in vars(sums).values())


def test_adjacent_mean_leaves_out_what_is_not_defined():
    nan = torch.nan
    matrix = torch.tensor([[1, 0.5, 9], [0.5, 1, nan], [9, nan, 1]])
    assert adjacent_mean(matrix) == 0.5
