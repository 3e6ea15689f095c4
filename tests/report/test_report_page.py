"""The HTML page, as a browser shows it: without a network, with the numbers of the CSV files."""

import csv
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from report.made import VTAB, final, select, whole

from gleam_mm.report import Study, build, write
from gleam_mm.report.figures import Palette

CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser')
needs_chromium = pytest.mark.skipif(
    not CHROMIUM, reason='no Chromium on the PATH (Debian: apt-get install chromium)'
)


@pytest.fixture(scope='module')
def report():
    """Two whole methods, one with missing tasks, selection trials, and special characters."""
    study = whole(('lora', 'gleam-l'), name='<b>"whole"</b> & co')
    study.results.extend(
        final('linear', task, seed, 40 + seed) for task in VTAB[:5] for seed in (0, 1)
    )
    study.results.extend(final('linear', task, 0, None) for task in VTAB[5:])
    study.results.append(select('linear', accuracy=12.34))
    return build([study])


@pytest.fixture(scope='module')
def page(report, tmp_path_factory):
    folder = tmp_path_factory.mktemp('report')
    write(report, folder)
    return folder / 'report.html'


def browse(page, *flags):
    """Opens the page in headless Chromium with a fresh profile."""
    done = subprocess.run(
        [
            CHROMIUM,
            '--headless',
            '--no-sandbox',
            '--disable-gpu',
            '--disable-quic',
            '--no-first-run',
            '--disable-background-networking',
            '--disable-component-update',
            '--disable-sync',
            '--hide-scrollbars',
            f'--user-data-dir={page.parent / "profile"}',
            *flags,
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class Reader(HTMLParser):
    """Collects the cells of tables and the marks of figures."""

    def __init__(self):
        super().__init__()
        self.rows, self.marks = {}, []
        self._table = self._row = self._column = None
        self._reading = False

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if tag == 'table':
            self._table = found['id'].removeprefix('table-')
        elif tag == 'tr' and 'data-label' in found:
            self._row = (self._table, found['data-label'], found['class'])
        elif tag == 'td':
            self._column = found['data-column']
        elif tag == 'span' and found.get('class') == 'value':
            self._reading = True
        elif 'mark' in (found.get('class') or '').split():
            self.marks.append((tag, found))

    def handle_data(self, data):
        if self._reading:
            self.rows.setdefault(self._row, {})[self._column] = data
            self._reading = False


def read(text):
    reader = Reader()
    reader.feed(text)
    return reader


def check_numbers(report, shown):
    """Every number of the page is that of the CSV file, and every number of the CSV is there."""
    compared = 0
    for table in report.tables:
        head = table.head.lower()
        for line in csv.DictReader(io.StringIO(report.files[f'{table.key}.csv'])):
            cells = shown[table.key, line[head], line['source']]
            for column in table.columns:
                text = cells[column.key]
                if not line[column.key]:
                    assert text.startswith('—')
                elif column.key == 'parameters':
                    assert float(text) * 1e6 == pytest.approx(float(line[column.key]), rel=0.01)
                else:
                    assert text == f'{float(line[column.key]):.1f}'
                    compared += 1
    assert compared > 100


@needs_chromium
def test_a_browser_shows_the_numbers_of_the_csv(report, page):
    shown = read(browse(page, '--dump-dom'))
    check_numbers(report, shown.rows)
    kinds = {(tag, node['class']) for tag, node in shown.marks}
    assert {
        ('circle', 'mark measured'),
        ('circle', 'mark paper'),
        ('rect', 'mark measured'),
    } < kinds
    assert ('path', 'mark curve') in kinds
    by_task = {
        (node['data-name'], node['data-task']): node['data-value']
        for tag, node in shown.marks
        if tag == 'rect'
    }
    assert len(by_task) == 2 * 19 + 5
    for (name, task), value in by_task.items():
        assert shown.rows['vtab-vit-b-tasks', name, 'measured'][task] == value


@needs_chromium
def test_a_browser_draws_the_figures(page, tmp_path):
    picture = tmp_path / 'page.png'
    browse(page, f'--screenshot={picture}', '--window-size=1280,5200')
    pixels = np.asarray(Image.open(picture).convert('RGB')).astype(int)
    colours = Palette(['LoRA', 'GLEAM-L', 'Linear probe'])
    for name in ('LoRA', 'GLEAM-L', 'Linear probe'):
        hexadecimal = colours.colour(name).lstrip('#')
        colour = [int(hexadecimal[i : i + 2], 16) for i in (0, 2, 4)]
        assert (abs(pixels - colour).sum(-1) < 12).sum() > 1000, name


def test_the_page_needs_nothing_but_itself(report):
    text = report.files['report.html']
    assert not re.search(r'https?://|<script|<link|<iframe|<img|@import|url\(|srcset', text)


def test_the_files_hold_no_result_of_a_selection(report):
    assert not any('12.3' in text for text in report.files.values())


def test_names_are_escaped(report):
    text = report.files['report.html']
    assert '<b>"whole"</b>' not in text
    assert '&lt;b&gt;' in text


def test_every_tag_is_closed(report):
    open_tags = []

    class Checker(HTMLParser):
        def handle_starttag(self, tag, attributes):
            if tag not in ('meta', 'br'):
                open_tags.append(tag)

        def handle_endtag(self, tag):
            assert open_tags.pop() == tag

    Checker().feed(report.files['report.html'])
    assert open_tags == []


def test_other_settings_are_told():
    study = Study('made', [final()], {'train_cfg.max_epochs': 2})
    assert 'train_cfg.max_epochs=2' in build([study]).files['report.html']


def test_what_the_page_says_without_a_browser(report):
    check_numbers(report, read(report.files['report.html']).rows)


def test_fewer_seeds_than_planned_are_marked():
    study = Study('made', [final(seed=0), final(seed=1), final(seed=2, accuracy=None)])
    for name in ('report.html', 'report.md'):
        assert '†' in build([study]).files[name]
    assert r'^\dagger' in build([study]).files['report.tex']


def test_writing_replaces_older_files(report, tmp_path):
    (tmp_path / 'report.html').write_text('old')
    paths = write(report, tmp_path)
    assert {path.name for path in paths} == set(report.files)
    assert all(path.read_text() == report.files[path.name] for path in paths)
