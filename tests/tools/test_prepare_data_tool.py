"""tools/prepare_data.py as a user runs it."""

import signal
import subprocess
import sys
import time

import pytest
from PIL import Image
from tool_folder import TOOLS
from vtab_tree import make_vtab_tree


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return make_vtab_tree(tmp_path_factory.mktemp('data') / 'vtab-1k', ['cifar', 'dtd'], size=8)


@pytest.fixture
def source(tmp_path):
    """A folder of 47 classes, 4 images each."""
    for label in range(47):
        folder = tmp_path / 'source' / f'{label:02}'
        folder.mkdir(parents=True)
        for index in range(4):
            Image.new('RGB', (4, 4), (label, index, 0)).save(folder / f'{index}.png')
    return tmp_path / 'source'


def test_verify_prints_a_table_and_exits_with_0(call, root):
    done = call('prepare_data.py', 'verify', root, '--tasks', 'cifar100', 'dtd', '--any-size')
    assert done.code == 0, done.err
    rows = [line.split() for line in done.out.splitlines()]
    assert ['cifar', 'train800', '8', '8/100', '1-1', '-', 'ok'] in rows
    assert done.out.rstrip().endswith('8 lists, 60 lines: 0 faults, 0 warnings')


def test_verify_exits_with_1_at_a_fault_and_names_it(call, root):
    done = call('prepare_data.py', 'verify', root.parent, '--tasks', 'dtd')
    assert done.code == 1
    assert 'dtd/train800.txt: 8 lines, there must be 800' in done.out
    assert '4 lists, 30 lines: 4 faults' in done.out
    done = call('prepare_data.py', 'verify', root, '--any-size')
    assert done.code == 1
    assert 'sun397/test.txt: does not exist' in done.out


def test_a_dry_run_writes_nothing(call, source, tmp_path):
    arguments = ['vtab', 'dtd', '--source', source, '--out', tmp_path / 'out']
    done = call('prepare_data.py', *arguments, '--sizes', '60', '20', '47', '--dry-run')
    assert done.code == 0, done.err
    assert 'train800val200.txt: 80 images' in done.out
    assert 'choice of images: seeded-stratified. NOT the images of VTAB-1K' in done.out
    assert not (tmp_path / 'out').exists()


def test_what_is_built_passes_verify(call, source, tmp_path, monkeypatch):
    monkeypatch.setenv('GLEAM_DATA', str(tmp_path / 'data'))
    arguments = ['vtab', 'dtd', '--source', source, '--sizes', '60', '20', '47']
    done = call('prepare_data.py', *arguments)
    assert done.code == 0, done.err
    assert 'data/vtab-1k/dtd: written' in done.out
    assert call('prepare_data.py', *arguments).out.count('there already, nothing to do') == 1
    assert call('prepare_data.py', *arguments, '--seed', '1').code == 2
    done = call('prepare_data.py', 'verify', '--tasks', 'dtd', '--any-size', '--decode')
    assert done.code == 0, done.out
    assert 'seeded-stratified' in done.out


@pytest.mark.slow
def test_a_killed_conversion_goes_on(source, tmp_path):
    out = tmp_path / 'out' / 'dtd'
    arguments = [TOOLS / 'prepare_data.py', 'vtab', 'dtd', '--source', source]
    arguments += ['--out', out.parent, '--sizes', '94', '47', '47', '--workers', '1']
    # The first run stops itself in the middle, as hard as a power cut.
    script = (
        'import os, pathlib, runpy, signal, sys\n'
        'sys.argv = sys.argv[1:]\n'
        'replace = pathlib.Path.replace\n'
        'done = []\n'
        'def stop(path, target):\n'
        '    if len(done) == 100: os.kill(os.getpid(), signal.SIGKILL)\n'
        '    done.append(1)\n'
        '    return replace(path, target)\n'
        'pathlib.Path.replace = stop\n'
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    killed = subprocess.run([sys.executable, '-c', script, *map(str, arguments)])
    assert killed.returncode == -signal.SIGKILL
    written = {file: file.stat().st_mtime_ns for file in out.rglob('*.png')}
    assert 90 < len(written) <= 100
    assert not list(out.glob('*.txt')) and not (out / 'manifest.json').exists()
    time.sleep(0.01)
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert sum(1 for _ in out.rglob('*.png')) == 94 + 47 + 141 + 47
    kept = [
        file for file, when in written.items() if file.exists() and when == file.stat().st_mtime_ns
    ]
    assert len(kept) >= len(written) - 1
    assert not list(out.rglob('.writing*')) and not (out / '.preparing.json').exists()


@pytest.mark.parametrize(
    ('arguments', 'told'),
    [
        (['verify', 'nowhere'], ['nowhere', 'neither vtab-1k/ nor fgvc/']),
        (['vtab', 'cifr', '--source', '.'], ["unknown VTAB-1K task 'cifr'", 'cifar']),
        (['fgvc', 'carz', '--source', '.'], ["unknown few-shot FGVC task 'carz'"]),
        (
            ['vtab', 'resisc45', '--source', 'nowhere'],
            ['nowhere does not exist', 'by hand', 'NWPU-RESISC45'],
        ),
        (
            ['vtab', 'dmlab', '--from', 'tfds', '--source', '.'],
            ['there is no dmlab/<version>', 'TFDS dmlab only'],
        ),
        (['fgvc', 'cars', '--source', '.', '--lists', '.'], ['no test_meta.list', 'by hand']),
        (['vtab', 'dtd', '--source', '.', '--sizes', '8'], ['3 positive numbers']),
    ],
)
def test_mistakes_take_one_line_and_exit_with_2(call, arguments, told):
    done = call('prepare_data.py', *arguments)
    assert done.code == 2
    assert done.err.startswith('prepare_data.py: error: ')
    assert len(done.err.splitlines()) == 1
    for part in told:
        assert part in done.err


def test_where_tells_of_every_dataset(call):
    told = call('prepare_data.py', 'where').out
    assert told.count('by hand') == 3
    assert 'stanford_cars' in told and 'smallnorb_ele' in told and 'NOAH' in told
