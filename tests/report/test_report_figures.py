"""The figures' marks stand where the numbers are, and labels keep out of each other's way."""

import re
from xml.etree import ElementTree

import pytest
from report.made import curve, final, whole

from gleam_mm.report import Study, figures
from gleam_mm.report.suites import SUITES
from gleam_mm.report.svg import Box, place_labels, text_width, ticks
from gleam_mm.report.trials import SHOTS, rows

VTAB, _, FGVC = SUITES


def palette(found):
    return figures.Palette(list(dict.fromkeys(row.name for row in found)))


def marks(drawing, kind):
    return [
        node
        for node in ElementTree.fromstring(drawing).iter()
        if node.get('class') == f'mark {kind}'
    ]


def test_the_trade_off_is_drawn_at_averages():
    found = rows([whole(('linear', 'lora', 'gleam-l'))], VTAB)
    drawing, caption = figures.trade_off(VTAB, 'vit-b', found, palette(found))
    drawn = {node.get('data-name'): node for node in marks(drawing, 'measured')}
    for row in found:
        assert float(drawn[row.name].get('data-value')) == pytest.approx(
            row.average(VTAB).mean, abs=0.05
        )
    # More parameters are further to the right, higher accuracies further up.
    by_size = [float(drawn[name].get('cx')) for name in ('Linear probe', 'GLEAM-L', 'LoRA')]
    assert by_size == sorted(by_size)
    best = max(found, key=lambda row: row.average(VTAB).mean)
    assert min(drawn.values(), key=lambda node: float(node.get('cy'))) is drawn[best.name]
    published = {node.get('data-name'): node.get('data-value') for node in marks(drawing, 'paper')}
    assert len(published) == 15
    assert (published['GLEAM-L'], published['BitFit']) == ('76.8', '65.2')
    assert 'Hollow' in caption


def test_methods_without_all_tasks_are_not_drawn_beside_those_that_have_them():
    study = whole(('lora',))
    study.results.append(final('gleam-l', accuracy=99))
    found = rows([study], VTAB)
    drawing, caption = figures.trade_off(VTAB, 'vit-b', found, palette(found))
    assert [node.get('data-name') for node in marks(drawing, 'measured')] == ['LoRA']
    assert 'GLEAM-L (1/19)' in caption


def test_where_no_method_has_all_tasks_the_figure_says_which_it_shows():
    study = Study(
        'made',
        [
            final('lora', 'vtab-cifar', accuracy=70),
            final('lora', 'vtab-dtd', accuracy=60),
            final('gleam-l', 'vtab-dtd', accuracy=66),
            final('fact', 'vtab-svhn', accuracy=None),
        ],
    )
    found = rows([study], VTAB)
    drawing, caption = figures.trade_off(VTAB, 'vit-b', found, palette(found))
    values = {node.get('data-name'): node.get('data-value') for node in marks(drawing, 'measured')}
    assert values == {'LoRA': '60.0', 'GLEAM-L': '66.0'}
    assert 'the mean of the 1 that all methods drawn have: DTD' in caption
    assert 'Not drawn, for tasks are missing: FacT-TT (0/19)' in caption
    assert 'Mean accuracy of 1 of 19 tasks' in drawing
    published = {node.get('data-name'): node.get('data-value') for node in marks(drawing, 'paper')}
    assert published['GLEAM-L'] == '72.2'
    assert 'BitFit' not in published  # its tasks are not quoted


def test_nothing_measured_draws_nothing():
    found = rows([Study('made', [final(accuracy=None)])], VTAB)
    colours = palette(found)
    assert figures.trade_off(VTAB, 'vit-b', found, colours) is None
    assert figures.bars(VTAB, found, colours) == {}
    assert figures.curves(VTAB, found, colours) == {}


def test_bars_are_as_long_as_accuracies():
    found = rows([Study('made', [final('lora', accuracy=25), final('linear', accuracy=75)])], VTAB)
    charts = figures.bars(VTAB, found, palette(found))
    assert {group: list(tasks) for group, tasks in charts.items()} == {'Natural': ['CIFAR-100']}
    chart = charts['Natural']['CIFAR-100']
    long, short = (
        next(float(n.get('width')) for n in marks(chart, 'measured') if n.get('data-name') == name)
        for name in ('Linear probe', 'LoRA')
    )
    assert long == pytest.approx(3 * short, rel=0.01)
    (published,) = marks(chart, 'paper')
    assert published.get('data-value') == '64.4'


def test_curves_have_a_line_for_each_seed():
    results = [final(seed=seed) for seed in (0, 1)] + [final('gleam-l', curve=curve(1))]
    found = rows([Study('made', results)], VTAB)
    (chart,) = figures.curves(VTAB, found, palette(found)).values()
    assert [node.get('data-seed') for node in marks(chart, 'curve')] == ['0', '1']
    assert len(marks(chart, 'curve dot')) == 1


def test_a_loss_that_is_not_finite_interrupts_its_line():
    lost = curve(6)
    lost[3]['loss'] = None
    found = rows([Study('made', [final(curve=lost)])], VTAB)
    (chart,) = figures.curves(VTAB, found, palette(found)).values()
    (line,) = marks(chart, 'curve')
    assert re.findall('[ML]', line.get('d')) == ['M', 'L', 'L', 'M', 'L']
    alone = [{'epoch': 1, 'loss': None}]
    found = rows([Study('made', [final(curve=alone)])], VTAB)
    assert figures.curves(VTAB, found, palette(found)) == {}


def test_shots_are_drawn_for_each_task_and_their_average():
    studies = [
        whole(datasets=list(FGVC.tasks), name=f'{n}', overrides={SHOTS: n}) for n in (1, 4, 16)
    ]
    found = rows(studies, FGVC)
    charts = figures.shots(FGVC, found, palette(found))
    assert list(charts) == ['Average', *FGVC.tasks.values()]
    for chart in charts.values():
        drawn = [node for node in marks(chart, 'measured') if node.get('data-name') == 'LoRA']
        at = sorted(float(node.get('cx')) for node in drawn)
        assert at[1] - at[0] == pytest.approx(at[2] - at[1], abs=0.1)  # a logarithmic axis


def test_colours_are_of_the_method_not_of_its_place():
    one, two = figures.Palette(['GLEAM-L', 'LoRA']), figures.Palette(['LoRA', 'GLEAM-T', 'GLEAM-L'])
    assert one.colour('GLEAM-L') == two.colour('GLEAM-L') != two.colour('GLEAM-T')
    many = figures.Palette([f'm{i}' for i in range(25)])
    assert len({(many.colour(f'm{i}'), many.dash(f'm{i}')) for i in range(25)}) == 25


@pytest.mark.parametrize(
    ('low', 'high'), [(0, 1), (57.1, 76.8), (0.001, 0.0042), (50, 50), (0, 0), (-3, 7)]
)
def test_ticks_embrace_the_range(low, high):
    found = ticks(low, high)
    assert found[0] <= low
    assert found[-1] >= high
    assert 2 <= len(found) <= 12
    assert found == sorted(set(found))


def test_labels_keep_out_of_each_others_way():
    points = [(100 + 9 * i, 100 + 5 * (i % 3)) for i in range(8)]
    texts = [f'Method{i}' for i in range(8)]
    area = Box(0, 0, 400, 300)
    boxes = [
        Box(x, y - 9, x + text_width(text, 12), y + 3)
        for (x, y, _), text in zip(place_labels(points, texts, 12, area), texts, strict=True)
    ]
    for place, box in enumerate(boxes):
        assert box.outside(area) == 0
        for other in boxes[place + 1 :]:
            assert box.overlap(other) < 30
