"""The ways to compute a mixture that are timed against each other give the same numbers."""

import mixture
import pytest
import torch

from gleam_mm.petl.moe import ConvMoE

WINDOWS = mixture.Shape('windows', 5, 4)


def results(name, shape, windows=None):
    """What a way gives for two images, with all gradients."""
    torch.manual_seed(0)
    moe = ConvMoE(6, 3, top_k=2).eval()  # without noise
    z = torch.randn(2 * shape.windows, shape.side**2, 6, requires_grad=True)
    mixed = mixture.FORMS[name](moe, z, shape.side, windows or shape.windows)
    wanted = z, moe.kernels, moe.gate
    return [mixed, *torch.autograd.grad(mixed.sin().sum(), wanted)]


@pytest.mark.parametrize('name', [name for name in mixture.FORMS if name != mixture.OTHER])
def test_ways_are_the_mixture_in_use(name):
    for ours, theirs in zip(
        results(name, WINDOWS), results('a group for each', WINDOWS), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_one_gate_for_an_image_of_one_window_is_the_same():
    shape = mixture.Shape('image', 5)
    for ours, theirs in zip(
        results(mixture.OTHER, shape), results('a group for each', shape), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    ours, theirs = (results(name, WINDOWS)[0] for name in (mixture.OTHER, 'a group for each'))
    assert not torch.allclose(ours, theirs, atol=1e-2)


def test_rows_are_ratios_to_the_way_in_use(tmp_path, monkeypatch):
    monkeypatch.setattr(mixture, 'SHAPES', (mixture.Shape('image', 3), WINDOWS))
    for _ in range(2):  # the second time takes the place of the first
        mixture.main(['--rounds', '2', '--batch', '2', '--out', str(tmp_path)])
    found = mixture.read(tmp_path / 'mixture.csv')
    on_cpu = [name for name in mixture.FORMS if name != mixture.ON_CARD]
    assert [row.form for row in found] == [*on_cpu[:-1], *on_cpu]
    assert all(row.time > 0 and row.microseconds is None for row in found)
    assert {row.time for row in found if row.form == 'a group for each'} == {1}
    assert '### 2 images in float32 on cpu' in mixture.markdown(found)
    assert '| one gate for an image | — |' in mixture.markdown(found)
