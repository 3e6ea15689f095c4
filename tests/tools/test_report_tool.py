"""tools/report.py on studies as sweeps store them."""

import shutil
from pathlib import Path

import pytest

pytest.importorskip('optuna', reason="sweeps need Optuna: pip install 'gleam-mm[sweep]'")

from report.made import curve

from gleam_mm.sweep import Sweep
from gleam_mm.sweep.study import begin_study

WORKER = {'host': 'here', 'pid': 1}


def store(file, name='tiny', backbone='vit-b', unfinished=0, overrides=None):
    """Makes a study: 2 methods x 2 tasks x 2 values, and 2 seeds. Accuracies count upwards."""
    sweep = Sweep(
        backbone,
        ('lora', 'gleam-l'),
        ('vtab-cifar', 'vtab-dtd'),
        seeds=(0, 1),
        grid={'gleam-l': {'alpha': [1, 10]}},
        options=overrides or {},
    )
    study = begin_study(str(file), name, sweep)
    study.register()
    total, done = len(study.cells()), 0
    while done < total - unfinished and (claim := study.claim(WORKER)):
        claim.complete(50.0 + done, parameters=1000, seconds=30.0, curve=curve(3))
        done += 1
        study.register()


@pytest.fixture(scope='module')
def stored(tmp_path_factory):
    file = tmp_path_factory.mktemp('stored') / 'study.db'
    store(file)
    return file


@pytest.fixture
def study(stored, tmp_path):
    return Path(shutil.copy(stored, tmp_path))


def test_a_report_lands_beside_the_study(run, study, tmp_path):
    done = run('report.py', 'study.db', cwd=tmp_path)
    assert done.code == 0, done.err
    assert 'Table 1 of the paper' in done.out
    names = {path.name for path in (tmp_path / 'report').iterdir()}
    assert {'report.html', 'report.md', 'report.tex', 'finals.csv', 'vtab-vit-b-tasks.csv'} <= names
    assert all(f'wrote report/{name}' in done.out for name in names)
    finals = (tmp_path / 'report' / 'finals.csv').read_text().splitlines()
    assert len(finals) == 1 + 2 * 2 * 2  # not the selection's trainings


def test_reading_changes_nothing(call, study):
    before = study.read_bytes()
    assert call('report.py', study).code == 0
    assert study.read_bytes() == before


def test_an_unfinished_study_has_missing_cells(call, tmp_path):
    store(tmp_path / 'study.db', unfinished=3)
    done = call('report.py', 'study.db', '--out', 'here')
    assert done.code == 0
    assert (tmp_path / 'here' / 'report.html').is_file()
    assert '— 2/19' in done.out


def test_several_studies_make_one_report(call, study, tmp_path):
    store(tmp_path / 'swin.db', backbone='swin-b')
    assert '--out' in call('report.py', 'study.db', 'swin.db').err
    done = call('report.py', 'study.db', 'swin.db', '--out', 'both')
    assert done.code == 0
    assert 'Table 1 of the paper' in done.out
    assert 'Table 4 of the paper' in done.out


def test_studies_are_named_where_a_storage_holds_several(call, study, tmp_path):
    store(study, name='second', overrides={'train_cfg.max_epochs': 2})
    done = call('report.py', 'study.db')
    assert done.code == 2
    assert all(name in done.err for name in ('tiny', 'second'))
    assert call('report.py', 'study.db', '--study', 'second').code == 0
    assert 'train_cfg.max_epochs=2' in (tmp_path / 'report' / 'report.html').read_text()
    both = call('report.py', 'study.db', '--study', 'second', '--study', 'tiny')
    assert 'GLEAM-L (second)' in both.out


def test_studies_of_one_name_are_told_apart(call, study, tmp_path):
    (tmp_path / 'other').mkdir()
    store(tmp_path / 'other' / 'study.db')
    done = call('report.py', 'study.db', 'other/study.db', '--out', 'both')
    assert done.code == 0
    for place in ('study.db', 'other/study.db'):
        assert f'| GLEAM-L (tiny in {place}) |' in done.out
    finals = (tmp_path / 'both' / 'finals.csv').read_text().splitlines()
    assert len({line.partition(',')[0] for line in finals[1:]}) == 2


def test_a_study_counts_once(call, study, tmp_path):
    shutil.copy(study, tmp_path / 'copy.db')
    for second in ('study.db', 'copy.db'):
        done = call('report.py', 'study.db', second, '--out', 'both')
        assert done.code == 2
        assert f'{second}: its study tiny was given twice, also in study.db' in done.err
    assert not (tmp_path / 'both').exists()


@pytest.mark.parametrize(
    ('arguments', 'told'),
    [
        (['none.db'], 'none.db: no such study'),
        (['text.db'], 'text.db: not an SQLite database'),
        (['study.db', 'other.db', '--study', 'tiny', '--out', 'x'], '--study'),
        (['postgresql://nobody@localhost:1/none', '--out', 'x'], 'localhost:1'),
        (['postgresql://nobody@localhost:1/none'], '--out'),
    ],
)
def test_mistakes_take_one_line_and_exit_with_2(call, study, tmp_path, arguments, told):
    (tmp_path / 'text.db').write_text('this is no database at all, but some text')
    done = call('report.py', *arguments)
    assert done.code == 2
    assert done.err.startswith('report.py: error: ')
    assert len(done.err.splitlines()) == 1
    assert told in done.err
    assert not (tmp_path / 'report').exists()
    assert not (tmp_path / 'x').exists()
