"""Figures as files and in pages: the same bytes each time, marks where they belong, names apart."""

import itertools
import re
from colorsys import rgb_to_hls
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.text import Annotation, Text
from PIL import Image

from gleam_mm.output import figures


def draw():
    figure = figures.new(300, 200)
    ax = figure.subplots()
    (line,) = ax.plot([1, 2, 3], [4, 6, 5], marker='o')
    figures.tip(line, 'a <tip> & "more" \x1b')
    ax.fill_between([1, 3], [4, 4], hatch='//')  # which an SVG refers to by name
    ax.set_title('x < y & z')
    return figure


def test_the_same_figure_has_the_same_bytes(tmp_path):
    one, two = (
        [path.read_bytes() for path in figures.save(draw(), tmp_path / folder / 'f', 'svg', 'png')]
        for folder in ('one', 'two')
    )
    assert one == two
    assert b'date' not in one[0].lower()


def test_what_is_written_can_be_read(tmp_path):
    svg, png = figures.save(draw(), tmp_path / 'f', 'svg', 'png')
    assert (svg.name, png.name) == ('f.svg', 'f.png')
    assert Image.open(png).size == (300 * 160 / 72 // 1, 200 * 160 / 72 // 1)
    root = ElementTree.parse(svg).getroot()
    assert root.tag == '{http://www.w3.org/2000/svg}svg'
    texts = [node.text for node in root.iter('{http://www.w3.org/2000/svg}text')]
    assert 'x < y & z' in texts


def test_a_dark_figure_differs_in_colours_alone(tmp_path):
    figure = draw()
    figure.gca().plot([1, 2], [5, 5], color=figures.ACCENT)
    light, dark = (
        path.read_text() for path in figures.save(figure, tmp_path / 'f', 'svg', 'dark.svg')
    )
    pairs = list(
        zip(*(re.findall(r': (#[0-9a-f]{6})', text) for text in (light, dark)), strict=True)
    )
    assert re.sub(r': #[0-9a-f]{6}', '', light) == re.sub(r': #[0-9a-f]{6}', '', dark)
    assert {'#ffffff', figures.ACCENT} <= {one for one, _ in pairs}
    for one, other in pairs:
        (hue, before, _), (same, after, _) = (rgb_to_hls(*to_rgb(c)) for c in (one, other))
        assert (before < 0.5) == (after > 0.5)
        assert after in (0, 1) or abs(hue - same) < 0.02 or one == '#ffffff'


def test_a_page_gets_tips_and_refers_to_nothing_else():
    text = figures.inline_svg(draw(), 'what it "shows"', 'kind')
    assert not re.search(r'https?:|<style|<metadata|<\?xml', text)
    root = ElementTree.fromstring(text)
    assert (root.get('class'), root.get('role')) == ('kind', 'img')
    assert root.get('aria-label') == 'what it "shows"'
    (tip,) = root.iter('title')
    assert tip.text == r'a <tip> & "more" \x1b'
    ids = [node.get('id') for node in root.iter() if node.get('id')]
    assert len(set(ids)) == len(ids)
    referred = set(re.findall(r'(?:url\(|href=")#([\w-]+)', text))
    assert referred == set(ids) != set()


def test_figures_of_a_page_share_no_ids():
    one, two = (set(re.findall(r' id="(.*?)"', figures.inline_svg(draw(), t, ''))) for t in 'ab')
    assert one
    assert not one & two


@pytest.mark.parametrize(
    'sizes',
    [
        [9056, 70784, 85798656],
        [0, 9056, 294912],
        [0, 294912],
        [204800, 294912],
        [294912],
        [0],
        [5],
        [1e9],
    ],
)
def test_parameters_stand_in_their_order_within_the_axis(sizes):
    ax = figures.new(400, 300).subplots()
    places = list(map(figures.parameters_axis(ax, sizes), sizes))
    assert places == sorted(places)
    low, high = ax.get_xlim()
    assert low < places[0] and places[-1] < high
    if 0 not in sizes:
        assert places == pytest.approx(np.log10(sizes))
    ticks = [label.get_text() for label in ax.get_xticklabels()]
    assert ('0' in ticks) == (0 in sizes)
    assert {*ticks} - {'0'}  # without a power of ten nobody knows how large they are
    assert all(low < tick < high for tick in ax.get_xticks())


def test_powers_of_ten_are_short():
    ax = figures.new(400, 300).subplots()
    figures.parameters_axis(ax, [1, 1e9])
    assert [label.get_text() for label in ax.get_xticklabels()] == [
        *('1', '10', '100', '1 K', '10 K', '100 K', '1 M', '10 M', '100 M', '1 B'),
    ]


def overlap(one, two):
    width = min(one.x1, two.x1) - max(one.x0, two.x0)
    height = min(one.y1, two.y1) - max(one.y0, two.y0)
    return max(width, 0) * max(height, 0)


def test_names_keep_out_of_each_others_way():
    figure = figures.new(400, 300)
    ax = figure.subplots()
    points = [(100 + 9 * i, 100 + 5 * (i % 3)) for i in range(8)]
    ax.plot(*zip(*points, strict=True), 'o')
    ax.set(xlim=(0, 400), ylim=(0, 300))
    figures.write_names(ax, points, [f'Method{i}' for i in range(7)] + [''], radius=4)
    texts = [text for text in ax.texts if isinstance(text, Annotation)]
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in texts]  # an Annotation's has its line in it
    assert any(text.arrow_patch.get_visible() for text in texts)
    assert len(boxes) == 7
    for one, two in itertools.combinations(boxes, 2):
        assert overlap(one, two) < 30
    frame = ax.get_window_extent()
    for box in boxes:
        assert overlap(box, frame) == pytest.approx(box.width * box.height, rel=0.01)


def test_a_name_stands_beside_a_point_that_is_alone():
    ax = figures.new(400, 300).subplots()
    ax.plot([1], [1], 'o')
    figures.write_names(ax, [(1, 1)], ['name'], radius=5, fontsize=[9])
    (text,) = ax.texts
    assert text.xyann == (9, 0)
    assert not text.arrow_patch.get_visible()
