"""The figures' marks stand where the numbers are."""

import math
import re

import pytest
from report.made import curve, final, whole

from gleam_mm.output.figures import inline_svg
from gleam_mm.report import Study, figures
from gleam_mm.report.suites import SUITES
from gleam_mm.report.trials import SHOTS, rows

VTAB, _, FGVC = SUITES


def palette(found):
    return figures.Palette(list(dict.fromkeys(row.name for row in found)))


def tip_of(artist):
    return (artist.get_gid() or '').removeprefix('tip: ')


def marks(figure, source=''):
    """The marks that have tips, by what their tips begin with: the method's name."""
    (ax,) = figure.axes
    tipped = [artist for artist in (*ax.lines, *ax.patches) if tip_of(artist)]
    return {
        re.split('[,:]', tip_of(artist))[0]: artist for artist in tipped if source in tip_of(artist)
    }


def place(mark):
    ((x,), (y,)) = mark.get_data()
    return x, y


def lines(figure):
    """All lines, as their ends or points."""
    (ax,) = figure.axes
    return [tuple(zip(*line.get_data(), strict=True)) for line in ax.lines]


def whisker(x, score):
    return (x, score.mean - score.deviation), (x, score.mean + score.deviation)


def test_the_trade_off_is_drawn_at_averages():
    found = rows([whole(('linear', 'lora', 'gleam-l'))], VTAB)
    drawing, caption = figures.trade_off(VTAB, 'vit-b', found, palette(found))
    drawn = marks(drawing, 'measured')
    for row in found:
        x, y = place(drawn[row.name])
        assert y == row.average(VTAB).mean
        assert row.parameters == 0 or x == pytest.approx(math.log10(row.parameters))
        assert f'{y:.1f} %, {row.parameters:,}' in tip_of(drawn[row.name])
        assert whisker(x, row.average(VTAB)) in lines(drawing)
    assert place(drawn['Linear probe'])[0] < place(drawn['GLEAM-L'])[0]
    published = {name: place(mark)[1] for name, mark in marks(drawing, 'paper').items()}
    assert len(published) == 15
    assert (published['GLEAM-L'], published['BitFit']) == (76.8, 65.2)
    assert 'Hollow' in caption and 'on the test split, and print the best' in caption
    names = [text.get_text() for text in drawing.axes[0].texts]
    assert sorted(name for name in names if name != '//') == sorted(published)


def test_methods_without_all_tasks_are_not_drawn_beside_those_that_have_them():
    study = whole(('lora',))
    study.results.append(final('gleam-l', accuracy=99))
    found = rows([study], VTAB)
    drawing, caption = figures.trade_off(VTAB, 'vit-b', found, palette(found))
    assert list(marks(drawing, 'measured')) == ['LoRA']
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
    values = {name: place(mark)[1] for name, mark in marks(drawing, 'measured').items()}
    assert values == {'LoRA': 60, 'GLEAM-L': 66}
    assert 'the mean of the 1 that all methods drawn have: DTD' in caption
    assert 'Not drawn, for tasks are missing: FacT-TT (0/19)' in caption
    assert drawing.axes[0].get_ylabel() == 'mean accuracy of 1 of 19 tasks (%)'
    published = marks(drawing, 'paper')
    assert place(published['GLEAM-L'])[1] == 72.2
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
    bars = marks(chart, 'seeds')
    assert {name: bar.get_width() for name, bar in bars.items()} == {'LoRA': 25, 'Linear probe': 75}
    (ax,) = chart.axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ['LoRA', 'Linear probe']
    assert [text.get_text() for text in ax.texts] == ['25.0', '75.0']
    assert {text.get_position()[1] for text in ax.texts} == {0, 1}
    (published,) = marks(chart, 'paper').values()
    assert set(published.get_xdata()) == {64.4}


def test_bars_have_whiskers_and_the_papers_number_of_their_task():
    found = rows([whole(('linear',))], VTAB)
    for group in figures.bars(VTAB, found, palette(found)).values():
        for chart, label in zip(group.values(), group, strict=True):
            (task,) = [task for task, head in VTAB.tasks.items() if head == label]
            score = found[0].score(task)
            upright = [tuple((y, x) for x, y in line) for line in lines(chart)]
            assert whisker(0, score) in upright
            (published,) = marks(chart, 'paper').values()
            place = list(VTAB.tasks).index(task)
            assert set(published.get_xdata()) == {found[0].paper(VTAB).tasks[place]}


def test_curves_have_a_line_for_each_seed():
    results = [final(seed=seed) for seed in (0, 1)] + [final('gleam-l', curve=curve(1))]
    found = rows([Study('made', results)], VTAB)
    (chart,) = figures.curves(VTAB, found, palette(found)).values()
    lines = chart.axes[0].lines
    assert [tip_of(line) for line in lines] == ['LoRA, seed 0', 'LoRA, seed 1', 'GLEAM-L, seed 0']
    assert list(lines[0].get_ydata()) == [point['loss'] for point in curve()]
    assert [line.get_marker() for line in lines] == ['None', 'None', 'o']  # a point is no line


def test_a_loss_that_is_not_finite_interrupts_its_line():
    lost = curve(6)
    lost[3]['loss'] = None
    found = rows([Study('made', [final(curve=lost)])], VTAB)
    (chart,) = figures.curves(VTAB, found, palette(found)).values()
    (line,) = re.findall(r'seed 0</title><path d="(.*?)"', inline_svg(chart, '', ''), re.DOTALL)
    assert re.findall('[ML]', line) == ['M', 'L', 'L', 'M', 'L']
    alone = [{'epoch': 1, 'loss': None}]
    found = rows([Study('made', [final(curve=alone)])], VTAB)
    assert figures.curves(VTAB, found, palette(found)) == {}


def test_shots_are_drawn_for_each_task_and_their_average():
    studies = [
        whole(datasets=list(FGVC.tasks), name=f'{n}', overrides={SHOTS: n}) for n in (16, 1, 4)
    ]
    found = rows(studies, FGVC)
    charts = figures.shots(FGVC, found, palette(found))
    assert list(charts) == ['Average', *FGVC.tasks.values()]
    lora = [row for row in found if row.name == 'LoRA']
    for chart, task in zip(charts.values(), (None, *FGVC.tasks), strict=True):
        (ax,) = chart.axes
        (line,) = [x for x in ax.lines if len(x.get_xdata()) == 3 and x.get_color() == '#1f5f8b']
        scores = [row.score(task) if task else row.average(FGVC) for row in lora]
        assert list(line.get_xdata()) == [1, 4, 16]
        assert list(line.get_ydata()) == [score.mean for score in scores]
        assert ax.get_xscale() == 'log'
        for number, score in zip((1, 4, 16), scores, strict=True):
            assert whisker(number, score) in lines(chart)
        tips = [tip_of(mark) for mark in ax.lines]
        assert f'LoRA, 16-shot: {scores[-1].mean:.1f} %' in tips


def test_colours_are_of_the_method_not_of_its_place():
    one, two = figures.Palette(['GLEAM-L', 'LoRA']), figures.Palette(['LoRA', 'GLEAM-T', 'GLEAM-L'])
    assert one.colour('GLEAM-L') == two.colour('GLEAM-L') != two.colour('GLEAM-T')
    many = figures.Palette([f'm{i}' for i in range(25)])
    assert len({str(many.line(f'm{i}')) for i in range(25)}) == 25
