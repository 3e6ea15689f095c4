"""The HTML page, as a browser shows it: without a network, with the numbers of the CSV files."""

import csv
import io
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from report.made import VTAB, final, select, whole

from gleam_mm.report import Study, build, write
from gleam_mm.report.figures import Palette
from gleam_mm.report.suites import SUITES

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
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class Reader(HTMLParser):
    """Collects the cells of tables and what figures show: (figure, tip)."""

    def __init__(self):
        super().__init__()
        self.rows, self.marks, self.ids, self.figure = {}, [], [], ''
        self._table = self._row = self._column = None
        self._reading = self._tip = False

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids += [found['id']] if 'id' in found else []
        if tag == 'table':
            self._table = found['id'].removeprefix('table-')
        elif tag == 'tr' and 'data-label' in found:
            self._row = (self._table, found['data-label'], found['class'])
        elif tag == 'td':
            self._column = found['data-column']
        elif tag == 'span' and found.get('class') == 'value':
            self._reading = True
        elif tag == 'svg':
            self.figure = found['aria-label']
        elif tag == 'title' and self.figure:
            self._tip = True

    def handle_data(self, data):
        if self._tip:
            self.marks.append((self.figure, data))
            self._tip = False
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
    drawn = {}
    for figure, tip in shown.marks:
        name, value = re.match('([^,:]*)[^\\d]*([\\d.]+)', tip).groups()
        drawn.setdefault(figure, []).append((name, 'paper' in tip, value))
    about = 'VTAB-1K on ViT-B/16 (vit-b)'
    averages = drawn.pop(f'Accuracy against trained parameters, {about}')
    assert sum(paper for _, paper, _ in averages) == 15
    tasks = SUITES[0].tasks
    compared = 0
    for key, label in tasks.items():
        for name, paper, value in drawn.pop(f'Accuracy, {about}, {label}'):
            if not paper:
                assert shown.rows['vtab-vit-b-tasks', name, 'measured'][key] == value
                compared += 1
        assert drawn.pop(f'Training loss, {about}, {label}')
    assert compared == 2 * 19 + 5
    assert not drawn


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
    assert not re.search(r'https?://|<script|<link|<iframe|<img|@import|url\((?!#)|srcset', text)


def test_the_files_hold_no_result_of_a_selection(report):
    assert not any('12.3' in text for text in report.files.values())


def check_tags(text):
    open_tags, opened = [], set()

    class Checker(HTMLParser):
        def handle_starttag(self, tag, attributes):
            opened.add(tag)
            if tag not in ('meta', 'br'):
                open_tags.append(tag)

        def handle_startendtag(self, tag, attributes):
            opened.add(tag)

        def handle_endtag(self, tag):
            assert open_tags.pop() == tag

    Checker().feed(text)
    assert open_tags == []
    return opened


def test_every_tag_is_closed(report):
    check_tags(report.files['report.html'])


def test_every_id_is_of_its_own(report):
    ids = read(report.files['report.html']).ids
    assert len(set(ids)) == len(ids) > 40


HOSTILE = '<script>alert(1)</script>"\'|\n=../../x $a$ \\input{x} \x1b[31m \udc80'


@pytest.fixture(scope='module')
def hostile():
    """A study in which everything that has a name has a hostile one."""
    curve = [{'epoch': 1, 'loss': 1.0}]
    results = [
        final(method, dataset, seed, 50.0, backbone=f'vit{HOSTILE}', curve=curve)
        for method in (f'm{HOSTILE}', f'=n{HOSTILE}')
        for dataset in (f'd{HOSTILE}', 'vtab-cifar')
        for seed in (0, 1)
    ]
    results[0] = replace(results[0], state=HOSTILE, options={HOSTILE: HOSTILE})
    return build([Study(HOSTILE, results, {f'model.{HOSTILE}': HOSTILE})])


def test_no_name_becomes_a_tag_or_an_attribute(hostile, report):
    text = hostile.files['report.html']
    assert check_tags(text) <= check_tags(report.files['report.html']) | {'br', 'code'}
    assert '&lt;script&gt;alert(1)' in text
    links = re.findall('<a href="#(.*?)">', text)
    assert len(links) == 2 and set(links) <= set(read(text).ids)


def test_no_name_leaves_the_folder_of_the_report(hostile, tmp_path):
    folder = tmp_path / 'a' / 'b'
    paths = write(hostile, folder)
    assert all(path.parent == folder for path in paths)
    assert {path for path in tmp_path.rglob('*') if path.is_file()} == set(paths)
    assert len(paths) == 4 + len(hostile.tables)


def test_no_name_is_a_formula_a_command_or_markup(hostile):
    for name, text in hostile.files.items():
        assert not set(text) & set('\x1b\udc80'), name
        if name.endswith('.csv'):
            for row in csv.reader(io.StringIO(text)):
                assert not [cell for cell in row if re.match(r'\s*[=+\-@\t\r]', cell)]
    assert r'\input' not in hostile.files['report.tex']
    assert not re.search('^(?!%).*alert', hostile.files['report.tex'].split('begin')[0], re.M)
    assert not re.search(r'(?<!\\)<', hostile.files['report.md'])


LONG = {f'model.petl.{name * 150}': 0.5 for name in 'abc'}


@pytest.fixture(scope='module')
def long_settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp('long')
    write(build([Study('made', [final()], {'train_cfg.max_epochs': 2, **LONG})]), folder)
    return folder / 'report.html'


def test_other_settings_are_told(long_settings):
    text = long_settings.read_text()
    told = re.search('<p class="notice">.*?</p>', text).group()
    shown = re.findall('<code>(.*?)</code>', told)
    assert shown == ['train_cfg.max_epochs=2', *(f'{key}=0.5' for key in LONG)]


@needs_chromium
@pytest.mark.parametrize('medium', ['screen', 'print'])
def test_nothing_is_wider_than_the_page(long_settings, medium):
    """By what a browser says of the widths; in print nothing could be scrolled."""
    text = long_settings.read_text()
    if medium == 'print':
        text = text.replace('@media print', '@media all')
    tell = (
        '<script>document.title = [document.documentElement.scrollWidth, innerWidth,'
        "document.querySelector('.notice').scrollWidth,"
        "document.querySelector('.notice').clientWidth]</script>"
    )
    page = long_settings.with_name(f'{medium}.html')
    page.write_text(text.replace('</body>', f'{tell}</body>'))
    told = browse(page, '--dump-dom', '--window-size=520,800')
    wide, window, notice, room = map(int, re.search('<title>(.*?)</title>', told)[1].split(','))
    assert notice <= room < window
    if medium == 'screen':
        assert wide <= window


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
