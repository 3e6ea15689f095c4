"""MSPLoRA against the sum of its three levels, and what they share."""

import pytest
import torch
from mmpretrain.models import VisionTransformer
from watching import close, randomize, watch

from gleam_mm.petl import MSPLoRA


def test_every_site_adds_three_levels(backbone, images):
    method = MSPLoRA((3, 2, 1), groups=2, scale=0.5, sites=('qkv', 'fc2')).eval()
    method.attach(backbone)
    randomize(method)
    blocks = len(method.layout.sites(('block',)))
    for site, note in watch(method, backbone, images).items():
        whole = method.shared[f'{site.role}/{site.stage}']
        part = method.shared[f'{site.role}/{site.stage}/{int(site.block >= blocks / 2)}']
        pairs = [whole, part, method.local[site.key]]
        assert [pair.down.shape[0] for pair in pairs] == [3, 2, 1]
        weight = site.module.weight + 0.5 * sum(pair.up @ pair.down for pair in pairs)
        close(note.adapted, note.x @ weight.T + site.module.bias)


def test_thirds_of_a_vit_share_a_pair_each():
    with torch.device('meta'):
        method = MSPLoRA()
        method.attach(VisionTransformer('b'))
    assert set(method.shared) == {'qkv/0', 'qkv/0/0', 'qkv/0/1', 'qkv/0/2'}
    thirds = [method.levels(site)[1][-1] for site in method.sites.values()]
    assert thirds == list('000011112222')


def test_bad_ranks_are_named():
    with pytest.raises(ValueError, match=r'ranks=\[4, 2\]: give one of the network'):
        MSPLoRA((4, 2))
    with pytest.raises(
        ValueError, match=r'ranks=\[4, 0, 1\]: choose a list of whole numbers of at least 1'
    ):
        MSPLoRA([4, 0, 1])
