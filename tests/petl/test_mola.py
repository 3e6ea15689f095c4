"""MoLA against a loop over tokens and experts, its numbers of experts, and its balance loss."""

import pytest
import torch
from watching import close, randomize, watch

from gleam_mm.petl import MoLA


def route(own, token, k):
    p = (token @ own.gate.T).softmax(0)
    chosen = p.argsort(descending=True)[:k]
    return p, chosen, {int(i): p[i] / p[chosen].sum() for i in chosen}


def test_tokens_get_their_two_experts(backbone, images):
    method = MoLA(2, (3, 4), alpha=1.0).eval()
    method.attach(backbone)
    randomize(method)
    for site, note in watch(method, backbone, images).items():
        own = method.local[site.key]
        x, y = note.x.flatten(0, -2)[:40], note.y.flatten(0, -2)[:40]
        for token, before, after in zip(x, y, note.adapted.flatten(0, -2)[:40], strict=True):
            expected = before.clone()
            for i, weight in route(own, token, 2)[2].items():
                part = slice(2 * i, 2 * i + 2)
                expected += 0.5 * weight * own.up[:, part] @ (own.down[part] @ token)
            close(after, expected, 1e-4)


def test_deeper_blocks_have_other_numbers(backbone):
    method = MoLA(2, (1, 3))
    method.attach(backbone)
    depth = len(method.layout.sites(('block',)))
    numbers = [own.number for own in method.local.values()]
    assert numbers == [1] * (depth // 2) + [3] * (depth // 2)


def test_the_loss_is_least_where_experts_share_the_work(vit, images):
    torch.nn.init.normal_(vit.cls_token)  # zeros would be undecided
    method = MoLA(2, (4,), balance=0.5)
    method.attach(vit)
    randomize(method)
    vit.eval()
    vit(images)
    assert method.losses() == {}
    vit.train()
    seen = {}
    for site in method.sites.values():
        site.module.register_forward_pre_hook(
            lambda m, args, site=site: seen.__setitem__(site.key, args[0].flatten(0, 1))
        )
    vit(images)
    expected = 0
    for key, x in seen.items():
        own, counts, means = method.local[key], torch.zeros(4), torch.zeros(4)
        for token in x:
            p, chosen, _ = route(own, token, 2)
            counts[chosen] += 1
            means += p
        expected += 4 * (counts / counts.sum()) @ (means / len(x))
    loss = method.losses()['balance']
    torch.testing.assert_close(loss, 0.5 * expected)
    assert loss.item() >= 0.5 * 2 * 0.99  # one for each of two sites, where all is even
    assert method.losses() == {}


def test_it_cannot_be_merged(vit):
    method = MoLA()
    method.attach(vit)
    with pytest.raises(RuntimeError, match='a gate chooses experts for each token'):
        method.merge()
