"""Figures hold nothing that the JSON does not, and JSON has null for what is not defined."""

import json
from argparse import Namespace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gleam_mm.analysis import analyze, figures, homogeneity, routing


def pixels(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def texts(figure):
    return {text.get_text() for ax in figure.axes for text in ax.texts}


@pytest.fixture
def reread(tmp_path):
    """What comes back from a JSON file."""

    def through(content):
        figures.write_json(tmp_path / 'x.json', content)
        text = (tmp_path / 'x.json').read_text()
        assert 'NaN' not in text
        return json.loads(text)

    return through


def test_homogeneity_is_drawn_from_the_json_alone(make_subject, reread):
    # Stages of different widths, so that some pairs are not defined.
    result = homogeneity.measure(make_subject('GLEAM', 'swin'), ['proj'], max_images=6)
    again = reread(result)
    assert again['roles']['proj']['update']['cosine'][0][2] is None
    for draw in (
        lambda r: figures.similarity_maps(r, 'proj'),
        lambda r: figures.adjacent_bars([r, r], 'proj'),
    ):
        np.testing.assert_array_equal(pixels(draw(again)), pixels(draw(result)))
    drawn = texts(figures.similarity_maps(again, 'proj'))
    assert f'{again["roles"]["proj"]["update"]["cosine"][0][1]:.2f}'.lstrip('-') in {
        text.lstrip('-') for text in drawn
    }


def test_routing_is_drawn_from_the_json_alone(make_subject, reread):
    result = routing.measure(make_subject('GLEAM'), max_images=5)  # some classes have no image
    again = reread(result)
    assert [None] * 4 in again['sites'][0]['share_by_class']
    for draw in (figures.routing_layers, figures.routing_classes, figures.routing_balance):
        np.testing.assert_array_equal(pixels(draw(again)), pixels(draw(result)))


def test_the_balance_has_a_line_for_each_role(make_subject):
    result = routing.measure(make_subject('GLEAM'), max_images=5)
    roles = ('q', 'k', 'v', 'proj', 'fc1', 'fc2')
    sites = [site for site in result['sites'] if site['role'] == 'qkv']
    result['sites'] = [{**site, 'role': role} for role in roles for site in sites]
    drawn = figures.routing_balance(result)
    for ax, key in zip(drawn.axes, ('load_cv', 'gate_entropy', 'class_information'), strict=True):
        assert tuple(line.get_label() for line in ax.lines) == roles
        for line in ax.lines:
            assert list(line.get_ydata()) == [site[key] for site in sites]
        assert len({(line.get_linestyle(), line.get_marker()) for line in ax.lines}) == 6


def test_cells_have_numbers_only_where_they_can_be_read():
    few, many = Figure(), Figure()
    names = list(map(str, range(30)))
    figures.heat_map(few.subplots(), np.array([[0.25, np.nan], [-0.001, 123.4]]), 'ab', 'cd', 0, 1)
    figures.heat_map(many.subplots(), np.zeros((30, 30)), names, names, 0, 1)
    assert texts(few) == {'0.25', '0.00', '123'}
    assert not texts(many)


def test_hostile_names_are_drawn_as_text_and_stay_in_their_folder(make_subject, tmp_path, capsys):
    subject = make_subject('GLEAM')
    subject.name = '../$\\frac$\x1b[31m\n'
    args = Namespace(split='test', max_images=8, batch_size=4, images=['0'], roles=['qkv'])
    out = tmp_path / 'a' / 'b'
    for command in ('homogeneity', 'routing', 'attention'):
        written = analyze.COMMANDS[command](args, [subject], out)
        assert {path.parent for path in written} == {out}
    assert {path.parent for path in tmp_path.rglob('*.*')} == {out}
    assert r'../$\frac$\x1b[31m\n' in capsys.readouterr().out
    result = routing.measure(subject, max_images=8)
    result['classes'] = [subject.name for _ in result['classes']]
    figure = figures.routing_classes(result)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert set(labels) == {r'../\$\frac\$\x1b[31m\n'}
    assert figure.get_suptitle().startswith(r'../\$\frac\$\x1b[31m\n: ')
