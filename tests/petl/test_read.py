"""READ against PyTorch's GRU, and what autograd records of the backbone: nothing."""

import pytest
import torch
from watching import close, randomize, watch

from gleam_mm.petl import READ


def test_the_last_block_is_corrected_by_what_a_gru_makes_of_all(backbone, images):
    method = READ(5).eval()
    method.attach(backbone)
    randomize(method)
    reader = method.shared['reader']
    gru = torch.nn.GRU(method.layout.sites(('block',))[-1].width, 5)
    gru.load_state_dict({f'{name}_l0': p for name, p in reader.cell.named_parameters()})
    notes = list(watch(method, backbone, images).values())
    outputs = [note.y.flatten(0, -2) for note in notes]
    states, _ = gru(torch.stack([reader.norm(y) for y in outputs]))
    for note in notes[:-1]:
        assert torch.equal(note.adapted, note.y)
    close(notes[-1].adapted.flatten(0, -2), outputs[-1] + reader.up(states.mean(0)), 1e-4)


def test_only_the_last_stage_is_read(backbone):
    method = READ(5)
    method.attach(backbone)
    assert {site.stage for site in method.sites.values()} == {
        method.layout.sites(('block',))[-1].stage
    }


def test_autograd_records_nothing_of_the_backbone(vit, images):
    vit.requires_grad_(False)
    method = READ(5)
    method.attach(vit)
    randomize(method)
    recorded = []
    for site in method.layout.sites(('qkv', 'proj', 'fc1', 'fc2')):
        site.module.register_forward_hook(lambda m, args, out: recorded.append(out.requires_grad))
    vit(images)[0].sum().backward()
    assert recorded and not any(recorded)
    assert all(parameter.grad is not None for parameter in method.parameters())


def test_blocks_outside_of_the_last_stage_are_refused():
    from backbones import BACKBONES

    with pytest.raises(ValueError, match=r'blocks=\[0\]: READ reads blocks of the last stage'):
        READ(5, blocks=[0]).attach(BACKBONES['swin']())
