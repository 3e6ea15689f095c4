"""Groups of datasets, and the average that the papers print."""

import pytest

from gleam_mm.config import recipes
from gleam_mm.datasets.vtab import VTAB_TASKS
from gleam_mm.sweep import GROUPS, average, expand, over_seeds

# The paper's rows of GLEAM-L and GLEAM-B on VTAB-1K, and the averages beside them.
GLEAM_L = (
    [73.2, 92.5, 72.2, 99.3, 91.1, 90.5, 54.8, 85.8, 96.3, 86.4, 75.7],
    [82.4, 68.1, 52.1, 81.4, 85.5, 51.9, 35.1, 42.0],
    76.8,
)
GLEAM_B = (
    [73.0, 91.2, 71.4, 99.2, 90.9, 88.7, 54.3, 85.7, 95.7, 85.7, 75.1],
    [81.3, 66.7, 51.0, 80.6, 85.5, 50.6, 31.5, 40.8],
    75.9,
)


def test_groups_are_those_of_vtab():
    for group, datasets in GROUPS.items():
        tasks = [
            recipes.load(f'vit-mini_linear_{dataset}').train_dataloader.dataset.task
            for dataset in datasets
        ]
        own = group.removeprefix('vtab-')
        assert tasks == [name for name, task in VTAB_TASKS.items() if task.group == own]


@pytest.mark.parametrize('row', [GLEAM_L, GLEAM_B])
def test_average_is_the_papers(row):
    datasets = [dataset for group in GROUPS.values() for dataset in group]
    accuracies = dict(zip(datasets, [*row[0], *row[1]], strict=True))
    assert round(average(accuracies), 1) == row[2]


def test_average_is_over_groups_and_never_fills_a_gap():
    accuracies = {'vtab-cifar': 10.0, 'vtab-dtd': 30.0, 'vtab-kitti': 80.0}
    assert average(accuracies) == pytest.approx(50)
    assert average({**accuracies, 'vtab-svhn': None}) is None
    assert average({}) is None
    assert average({'fgvc-cars': 40.0, 'fgvc-pets': 60.0}) == pytest.approx(50)


def test_deviation_over_seeds():
    assert over_seeds([1.0, 2.0, 3.0]) == (2.0, 1.0)
    assert over_seeds([4.0]) == (4.0, None)


def test_expand():
    known = list(recipes.families()['datasets'])
    assert len(expand(['vtab'], known, 'dataset')) == 19
    assert expand(['vtab-kitti', 'vtab-structured'], known, 'dataset')[0] == 'vtab-kitti'
    assert len(expand(['vtab-kitti', 'vtab-structured'], known, 'dataset')) == 8
    assert set(expand(['mini'], known, 'dataset')) >= {'mini-digits'}
    assert expand(['vtab-clevr-*'], known, 'dataset') == ['vtab-clevr-count', 'vtab-clevr-dist']
    with pytest.raises(ValueError, match=r"unknown dataset 'vtab-cifa'.*did you mean 'vtab-cifar"):
        expand(['vtab-cifa'], known, 'dataset')
