"""Datasets one after the other have the same classes, or it is said in what they differ."""

import pytest
from mmengine.dataset import BaseDataset

from gleam_mm.registry import DATASETS, scope_of


@DATASETS.register_module()
class _Labelled(BaseDataset):
    def load_data_list(self):
        return [{'gt_label': 0}]


def concatenated(*classes):
    parts = [dict(type='_Labelled', metainfo=dict(classes=names)) for names in classes]
    with scope_of({}):
        return DATASETS.build(dict(type='ConcatDataset', datasets=parts))


def test_the_same_classes_are_concatenated():
    dataset = concatenated(('cat', 'dog'), ('cat', 'dog'))
    assert len(dataset) == 2 and dataset.metainfo['classes'] == ('cat', 'dog')


@pytest.mark.parametrize(
    ('other', 'told'),
    [
        (('dog', 'cat'), "class 0 is 'cat' and 'dog'"),
        (('cat', 'hen'), "class 1 is 'dog' and 'hen'"),
        (('cat', 'dog', 'hen'), '2 and 3, of one only: hen'),
    ],
)
def test_other_classes_are_told(other, told):
    with pytest.raises(ValueError, match=f'datasets.0 and datasets.2 differ in .*: {told}; give '):
        concatenated(('cat', 'dog'), ('cat', 'dog'), other)


def test_an_unknown_option_is_told():
    part = dict(type='_Labelled', metainfo=dict(classes=('cat', 'dog')))
    with scope_of({}), pytest.raises(TypeError, match="unexpected keyword argument 'test_mode'"):
        DATASETS.build(dict(type='ConcatDataset', datasets=[part], test_mode=True))
