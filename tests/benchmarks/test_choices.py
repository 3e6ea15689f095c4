"""benchmarks/choices: what docs/gleam.md tells of trials on val200 is what the record has."""

import itertools
import re

import pytest
import records
from test_told import ROOT

PARTS = {
    'none': 'none',
    'the head': 'head',
    'local transforms': 'local',
    'gate and noise': 'gate',
    'B': 'up',
    'A': 'down',
    "the experts' kernels": 'kernels',
}
FOUR = ('land', 'distance', 'letters', 'orientation')
NINE = ('digits', 'textures', 'letters', 'cells', 'land', 'defects', 'count', *FOUR[1::2])


@pytest.fixture(scope='module')
def trials():
    """(study, method, task, rate) -> the accuracy on val200, of studies with one seed a trial."""
    rows = records.read(ROOT / 'benchmarks' / 'choices' / records.CSV)
    return {
        (row.study, row.method, row.dataset.partition('-')[2], records.rate_of(row)): row.accuracy
        for row in rows
        if row.phase == 'select' and row.study != 'minivtab-two-seeds'
    }


def rows(head):
    """The cells of the lines of a table of docs/gleam.md."""
    page = (ROOT / 'docs' / 'gleam.md').read_text('utf-8')
    lines = page.split(head)[1].split('\n\n')[0].splitlines()[2:]
    assert len(lines) > 2
    return [[cell.strip() for cell in line.split('|')[1:-1]] for line in lines]


def numbers(*cells):
    return [float(number) for cell in cells for number in re.findall(r'\d+\.\d', cell)]


def test_which_part_breaks(trials):
    told = {name: numbers(*cells) for name, *cells in rows('| slower | land | letters |')}
    assert told == {
        name: [trials['gleam-parts', f'gleam-l-{part}', task, 3e-2] for task in FOUR[::2]]
        for name, part in PARTS.items()
    }


def test_rates_of_the_parts(trials):
    for name, *cells in rows('| seed 0 | 1e-2 | 3e-2 | mean of the higher |'):
        several = len(numbers(cells[0])) > len(FOUR)
        studies = ('gleam-rates-1', 'gleam-rates-2') if several else ('gleam-rates',)
        method = f'gleam-l-{name.rpartition(" ")[2]}'
        own = {
            rate: [[trials[study, method, task, rate] for task in FOUR] for study in studies]
            for rate in (1e-2, 3e-2)
        }
        for cell, trained in zip(cells, own.values(), strict=False):
            assert cell == 'at chance' or numbers(cell) == [*itertools.chain(*trained)], name
        higher = [sum(map(max, *pair)) / len(FOUR) for pair in zip(*own.values(), strict=True)]
        assert numbers(cells[-1]) == pytest.approx(higher, abs=0.06), name


def test_what_does_not_fold(trials):
    methods = {'GELU': 'gelu', 'bicubic interpolation': 'bicubic', 'both': 'gelu-bicubic'}
    told = {name: numbers(*cells) for name, *cells in rows('| in each expert | seed 0 |')}
    assert told.keys() == methods.keys()
    for name, (mean, *tasks) in told.items():
        own = [trials['gleam-unfolded', f'gleam-l-{methods[name]}', task, 1e-2] for task in FOUR]
        assert tasks == own, name
        assert mean == pytest.approx(sum(own) / len(FOUR), abs=0.06), name


def test_starts(trials):
    methods = iter(('gleam-l', 'gleam-b', 'gleam-t'))
    for _, start, *cells in rows('| preset | start | digits |'):
        if start == 'uniform':  # the others are trials of the second edition
            method = next(methods)
            own = [
                max(trials['minivtab-tuned-presets', method, t, r] for r in (3e-3, 1e-2, 3e-2))
                for t in NINE
            ]
            assert numbers(*cells[:-1]) == own, method
    assert next(methods, None) is None


def test_starts_on_the_real_backbone(trials):
    best = {
        (method, task): max(trials[study, f'gleam-l-{method}', task, r] for r in (1e-3, 3e-3, 1e-2))
        for study, method in (
            ('real-wirings', 'uniform'),
            ('real-orthogonal', 'orthogonal'),
            ('real-both', 'both'),
        )
        for task in FOUR[2:]
    }
    page = (ROOT / 'docs' / 'gleam.md').read_text('utf-8')
    for start, told in (
        ('uniform', 'GLEAM-L has {} and {} % on val200 of letters\nand orientation'),
        ('orthogonal', 'The orthogonal start has {} and {} on letters and orientation'),
        ('both', 'and the sum of both {} and {},'),
    ):
        assert told.format(*(best[start, task] for task in FOUR[2:])) in page
