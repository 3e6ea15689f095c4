"""The decisions of the gate, against the gate itself; and the statistics, against simple cases."""

import math

import numpy as np
import pytest
import torch

from gleam_mm.analysis.routing import NoGateError, RoutingProbe, RoutingSums, measure
from gleam_mm.analysis.subjects import AnalysisError
from gleam_mm.petl.moe import ConvMoE


@pytest.mark.parametrize('kind', ['vit', 'swin', 'timm-vit', 'timm-swin'])
def test_decisions_are_the_gates(kind, make_subject, images):
    """A mixture that lets its gate decide the same for all is seen at every site."""
    subject = make_subject('GLEAM', kind)
    mixer = subject.model.petl.shared['mixer']
    seen = []
    handle = mixer.register_forward_pre_hook(lambda module, args: seen.append(args))
    with torch.no_grad(), RoutingProbe(subject) as probe:
        subject.model.extract_feat(images)
        found = probe.take()
    handle.remove()
    assert list(found) == [site.name for site in probe.sites]
    for (z, grid, _), weights in zip(seen, found.values(), strict=True):
        logits = z[:, grid.prefix :].mean(1) @ mixer.gate
        best = logits.topk(2, dim=1)
        expected = torch.zeros_like(logits).scatter(1, best.indices, best.values.softmax(1))
        torch.testing.assert_close(weights, expected)
        assert len(weights) % 2 == 0


def test_the_mixture_is_left_as_it_was(make_subject, images):
    subject = make_subject('GLEAM')
    mixer = subject.model.petl.shared['mixer']
    with torch.no_grad():
        before = subject.model.extract_feat(images)[-1]
        with RoutingProbe(subject):
            inside = subject.model.extract_feat(images)[-1]
    assert 'route' not in vars(mixer)
    assert mixer.route.__func__ is ConvMoE.route
    torch.testing.assert_close(inside, before, rtol=0, atol=0)


@pytest.mark.parametrize(('case', 'k'), [('GLEAM', 2), ('GLEAM, k = 1', 1)])
@pytest.mark.parametrize('kind', ['vit', 'swin'])
def test_shares(case, k, kind, make_subject):
    subject = make_subject(case, kind)
    result = measure(subject, batch_size=10)
    assert result['top_k'] == k
    assert result['scales'] == [1, 2, 3, 4]
    assert len(result['classes']) == 10
    sites = result['sites']
    assert len(sites) == 4 * (2 if kind == 'vit' else 4)
    for site in sites:
        assert np.mean(site['share']) == pytest.approx(k / 4)
        assert sum(site['weight']) == pytest.approx(1)
        shares = np.array(site['share_by_class'])
        known = ~np.isnan(shares).any(1)
        np.testing.assert_allclose(shares[known].sum(1), k)
        assert 0 <= site['gate_entropy'] <= math.log(k) + 1e-6
        assert 0 <= site['class_information'] <= math.log(4) + 1e-6
    # 24 images; in Swin's stages 16 and 4 windows of 4 x 4 where attention sees them.
    decisions = {(site['role'], site['stage']): site['decisions'] for site in sites}
    if kind == 'vit':
        assert set(decisions.values()) == {24}
    else:
        assert decisions['qkv', 0] == 24 * 16
        assert decisions['proj', 1] == 24 * 4
        assert decisions['fc1', 0] == decisions['fc2', 1] == 24


def test_batches_do_not_matter(make_subject):
    subject = make_subject('GLEAM')
    whole, parts = measure(subject, batch_size=24), measure(subject, batch_size=7)
    for a, b in zip(whole['sites'], parts['sites'], strict=True):
        for key in ('share', 'weight', 'load_cv', 'gate_entropy', 'class_information'):
            np.testing.assert_allclose(a[key], b[key], rtol=1e-5, atol=1e-8)


def test_even_and_uneven_loads():
    sums = RoutingSums(2, 4)
    sums.update(torch.tensor([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]), torch.tensor([0, 1]))
    even = sums.result()
    assert even['share'] == [0.5] * 4
    assert even['load_cv'] == 0
    assert even['gate_entropy'] == pytest.approx(math.log(2))
    assert even['class_information'] == pytest.approx(math.log(2))  # the choice tells the class
    assert even['share_by_class'] == [[1, 1, 0, 0], [0, 0, 1, 1]]

    sums = RoutingSums(3, 4)
    sums.update(torch.tensor([[1.0, 0, 0, 0]] * 4), torch.tensor([0, 1]))  # two windows an image
    uneven = sums.result()
    assert uneven['share'] == [1, 0, 0, 0]
    assert uneven['load_cv'] == pytest.approx(np.std([1, 0, 0, 0]) / 0.25)
    assert uneven['gate_entropy'] == uneven['class_information'] == 0
    assert uneven['decisions'] == 4
    assert np.isnan(uneven['share_by_class'][2]).all()


def test_weights_that_sum_to_less_than_one_have_the_entropy_of_their_shares():
    """As those of a gate without ``renormalize``."""
    for weights, shares in (([0.3, 0, 0, 0], [1]), ([0.4, 0, 0.1, 0], [0.8, 0.2])):
        sums = RoutingSums(1, 4)
        sums.update(torch.tensor([weights]), torch.tensor([0]))
        entropy = -sum(share * math.log(share) for share in shares)
        assert sums.result()['gate_entropy'] == pytest.approx(entropy, abs=1e-6)
        np.testing.assert_allclose(sums.result()['weight'], weights, rtol=1e-6)


def test_windows_keep_the_class_of_their_image():
    sums = RoutingSums(2, 2)
    weights = torch.tensor([[1.0, 0], [1, 0], [1, 0], [0, 1], [0, 1], [0, 1]])
    sums.update(weights, torch.tensor([0, 1]))
    assert sums.result()['share_by_class'] == [[1, 0], [0, 1]]


@pytest.mark.parametrize('case', ['LoRA', 'GLEAM without MoE', 'Linear probing'])
def test_methods_without_a_gate_are_refused(case, make_subject):
    with pytest.raises(NoGateError, match='has no mixture of experts to look into'):
        measure(make_subject(case))


def test_of_several_mixtures_none_is_left_out_silently(make_subject, monkeypatch):
    subject = make_subject('GLEAM')
    petl = subject.model.petl
    monkeypatch.setattr(petl, 'members', lambda: [petl, petl])
    with pytest.raises(AnalysisError, match='has 2 mixtures of experts'):
        RoutingProbe(subject)
