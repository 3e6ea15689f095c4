"""On which pictures the subnets of a supernet are judged."""

import pytest

from gleam_mm.config import recipes
from gleam_mm.search.subnet import _evaluated


@pytest.mark.parametrize(
    ('dataset', 'splits', 'split', 'held_out'),
    [
        ('mini-digits', ('train800', 'val200'), 'val200', False),
        # What holds a part of its training images out has no split `val`.
        ('huggingface', (), 'train', True),
    ],
)
def test_subnets_are_judged_on_what_is_there_for_validation(dataset, splits, split, held_out):
    cfg = recipes.load(f'vit-mini_noah_{dataset}', {'model.head.num_classes': 10})
    found, opened = _evaluated(cfg, 'supernet.pth')
    judged = found.val_dataloader.dataset
    assert (opened, judged.split) == (splits, split)
    assert judged.get('take_held_out', False) == held_out
    assert found.test_dataloader is None
