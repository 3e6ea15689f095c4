"""SCT against its formula, its choice of channels, and its merge without a bias."""

import pytest
import torch
from watching import close, randomize, watch

from gleam_mm.petl import SCT


def choose(method, backbone, images):
    """Calibrates on two batches, of which the second is three times the first."""
    method.calibrate([lambda: backbone(images)[-1].sum(), lambda: backbone(3 * images)[-1].sum()])


def test_every_site_follows_the_formula(backbone, images):
    method = SCT(5, sites=('proj', 'fc1')).eval()
    method.attach(backbone)
    choose(method, backbone, images)
    randomize(method)
    for site, note in watch(method, backbone, images).items():
        own = method.local[site.key]
        expected = note.y.clone()
        for row, channel in enumerate(own.channels):
            salient = note.y[..., own.channels]
            expected[..., channel] += (salient * own.weight[row]).sum(-1) + own.bias[row]
        close(note.adapted, expected)


def test_calibration_chooses_the_channels_of_the_largest_norm(backbone, images):
    energy = {}
    method = SCT(5)
    method.attach(backbone)
    assert all(own.channels.tolist() == [0, 1, 2, 3, 4] for own in method.local.values())
    for batch in (images, 3 * images):
        for site, note in watch(method, backbone, batch).items():
            tokens = note.y.flatten(0, -2)
            energy[site] = energy.get(site, 0) + (tokens * tokens).sum(0)
    choose(method, backbone, images)
    chosen = {site: method.local[site.key].channels.tolist() for site in energy}
    assert any(channels != [0, 1, 2, 3, 4] for channels in chosen.values())
    for site, channels in chosen.items():
        others = [c for c in range(site.width) if c not in channels]
        assert sorted(channels) == channels and len(set(channels)) == 5
        assert energy[site][channels].min() >= energy[site][others].max()
    # The state tells which they are.
    twin = SCT(5)
    method.detach()
    twin.attach(backbone)
    twin.load_state_dict(method.state_dict())
    assert {site: twin.local[site.key].channels.tolist() for site in energy} == chosen


def test_it_folds_without_a_bias(vit):
    method = SCT(5)
    method.attach(vit)
    randomize(method)
    site = next(iter(method.sites.values()))
    weight, shift = method.fold(site, site.weight, None)
    x, own = torch.randn(7, 32), method.local[site.key]
    y = x @ site.weight.T
    y[:, :5] = y[:, :5] + y[:, :5] @ own.weight.T + own.bias
    close(x @ weight.T + shift, y)


def test_too_many_channels_are_named(vit):
    with pytest.raises(ValueError, match=r"number=33 exceeds the 32 channels of 'layers\.0"):
        SCT(33).attach(vit)


def test_channels_that_a_site_does_not_have_are_refused(vit):
    method = SCT(3)
    method.attach(vit)
    state = method.state_dict()
    name = next(name for name in state if name.endswith('.channels'))
    for channel in (-1, 32):
        with pytest.raises(RuntimeError, match=r'channels has numbers outside of 0 to 31'):
            method.load_state_dict({**state, name: torch.tensor([0, 1, channel])})
    method.load_state_dict({**state, name: torch.tensor([0, 1, 31])})
