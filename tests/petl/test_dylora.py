"""DyLoRA against a LoRA of each rank, and its draws."""

import copy

import pytest
import torch
from watching import randomize

from gleam_mm.petl import DyLoRA, LoRA


@pytest.mark.parametrize('rank', [1, 3, 4])
def test_serving_a_rank_is_a_lora_of_it(rank, backbone, images):
    method = DyLoRA(4, alpha=6.0).eval()
    method.attach(backbone)
    randomize(method)
    method.serve(rank)
    served = backbone(images)[-1]
    method.merge()
    torch.testing.assert_close(backbone(images)[-1], served, rtol=1e-4, atol=1e-4)
    method.detach()
    lora = LoRA(rank, alpha=6.0).eval()
    lora.attach(backbone)
    with torch.no_grad():
        for key, pair in lora.local.items():
            pair.down.copy_(method.local[key].down[:rank])
            pair.up.copy_(method.local[key].up[:, :rank])
    torch.testing.assert_close(backbone(images)[-1], served)


def test_each_step_trains_the_first_ranks_of_a_draw_and_a_copy_draws_alike(vit, images):
    method = DyLoRA(4)
    method.attach(vit)
    randomize(method)
    vit.train()

    def draws(method, vit):
        ranks = []
        for _ in range(20):
            method.zero_grad()
            vit(images)[0].square().sum().backward()
            (rank,) = {int(pair.down.grad.any(1).sum()) for pair in method.local.values()}
            assert all(pair.down.grad[:rank].any(1).all() for pair in method.local.values())
            ranks.append(rank)
        return ranks

    draws(method, vit)
    twin_vit, twin = copy.deepcopy((vit, method))
    first = draws(method, vit)
    assert set(first) == {1, 2, 3, 4}
    assert draws(twin, twin_vit) == first
    assert method.step == 40


def test_a_rank_that_was_not_trained_is_refused():
    with pytest.raises(ValueError, match='rank=9: this DyLoRA was trained at ranks 1 to 8'):
        DyLoRA(8).serve(9)
    with pytest.raises(ValueError, match='rank=0: this DyLoRA was trained'):
        DyLoRA(8).serve(0)
