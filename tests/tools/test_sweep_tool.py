"""tools/sweep.py as a user runs it: workers are killed, sweeps interrupted and taken up again."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sweep_place import OPTIONS, TASKS, make_place

from gleam_mm.sweep.study import open_study

TOOL = Path(__file__).parents[2] / 'tools' / 'sweep.py'
DATASETS = list(TASKS)[:1]  # with two methods, six trainings

SWEEP = """
backbone = 'tiny'
methods = ['gleam-t', 'lora']
datasets = {datasets}
grid = dict(alpha=[1, 10])
seeds = 1
heartbeat = 3
options = {options}
"""

# A training does not get beyond its second iteration before there is a file `go`, and fails while
# there is a file `break`.
HOLD = """
import time
from pathlib import Path
from mmengine.hooks import Hook
from gleam_mm.registry import HOOKS


@HOOKS.register_module()
class Hold(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if Path('break').exists():
            raise ZeroDivisionError('broken')
        while runner.iter == 1 and not Path('go').exists():
            time.sleep(0.02)
"""
USE = """
custom_imports = dict(imports=['hold'])
custom_hooks = [dict(type='Hold')]
"""


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    folder = make_place(tmp_path_factory.mktemp('place'))
    (folder / 'hold.py').write_text(HOLD)
    with (folder / 'configs' / '_base_' / 'backbones' / 'tiny.py').open('a') as file:
        file.write(USE)
    (folder / 'small.py').write_text(SWEEP.format(datasets=DATASETS, options=OPTIONS))
    return folder


class Run:
    """The tool in the background."""

    all = []

    def __init__(self, folder, *arguments, hangup=signal.SIG_DFL):
        Run.all.append(self)

        def handlers():
            # A suite in the background of a shell ignores Ctrl-C, and so would its children.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.signal(signal.SIGHUP, hangup)

        self.out = folder / f'out-{time.monotonic_ns()}.txt'
        environment = {k: v for k, v in os.environ.items() if k != 'GLEAM_DATA'}
        with self.out.open('w') as out:
            self.process = subprocess.Popen(
                [sys.executable, TOOL, *arguments],
                cwd=folder,
                env={**environment, 'OMP_NUM_THREADS': '1'},
                stdout=out,
                stderr=subprocess.STDOUT,
                preexec_fn=handlers,
            )

    def ended(self):
        """The exit status and what was printed."""
        code = self.process.wait()
        return code, self.out.read_text()


@pytest.fixture(autouse=True)
def _nothing_is_left():
    yield
    for run in Run.all:
        if run.process.poll() is None:
            run.process.terminate()
            run.process.wait()


def until(condition, run=None):
    while not (value := condition()):
        said = run.out.read_text() if run else ''
        assert run is None or run.process.poll() is None, said
        time.sleep(0.2)
    return value


def cells(folder, state):
    file = folder / 'work_dirs' / 'sweeps' / 'small' / 'study.db'
    if not file.is_file():
        return []
    try:
        return [cell for cell in open_study(str(file)).cells() if cell.state == state]
    except Exception:  # it is being created
        return []


def training(folder, number):
    """Processes that train, as soon as so many trainings are held in their second iteration."""
    own = [cell for cell in cells(folder, 'running') if cell.attribute('progress')]
    return [cell.attribute('worker')['pid'] for cell in own] if len(own) == number else []


def alive(pid):
    try:
        return (
            Path(f'/proc/{pid}/stat').read_text(encoding='utf-8').rpartition(')')[2].split()[0]
            != 'Z'
        )
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_a_hangup_is_ignored_under_nohup_and_ends_a_sweep_otherwise(place):
    kept = Run(place, 'run', 'small.py', hangup=signal.SIG_IGN)
    until(lambda: training(place, 1), kept)
    kept.process.send_signal(signal.SIGHUP)
    time.sleep(1)
    assert kept.process.poll() is None
    for run, number, status in ((kept, signal.SIGTERM, 143), (None, signal.SIGHUP, 129)):
        run = run or Run(place, 'run', 'small.py')
        until(lambda run=run: training(place, 1), run)
        run.process.send_signal(number)
        code, out = run.ended()
        assert code == status, out
        assert 'stopping: what is running goes back to waiting' in out
        assert out.endswith(f'sweep.py: ended by {number.name}\n')
        assert not cells(place, 'running')


@pytest.mark.slow
def test_a_sweep_survives_whatever_happens_to_it(place, call, monkeypatch):
    started = Run(place, 'run', 'small.py', '--workers', '2')
    first, second = until(lambda: training(place, 2), started)
    os.kill(first, signal.SIGKILL)
    pids = until(lambda: first not in (own := training(place, 2)) and own, started)
    assert second in pids
    started.process.send_signal(signal.SIGINT)
    code, out = started.ended()
    assert code == 130, out
    assert 'a worker died (signal 9); its training waits again' in out
    assert 'stopping: what is running goes back to waiting' in out
    assert out.endswith('sweep.py: interrupted\n')
    assert not any(map(alive, pids))
    assert not cells(place, 'running')

    # Two sweeps at once on the same file, of which one is killed: its worker ends by itself.
    killed = Run(place, 'run', 'small.py', '--workers', '1')
    other = Run(place, 'resume', 'small', '--workers', '1')
    pids = until(lambda: training(place, 2), other)
    killed.process.kill()
    until(lambda: sum(map(alive, pids)) == 1, other)
    (place / 'go').touch()
    code, out = other.ended()
    assert code == 0, out
    jobs = len(DATASETS) * 2 * (2 + 1)
    assert len(cells(place, 'complete')) == jobs
    assert f'[{jobs}/{jobs}] ' in out
    assert f'{jobs} trainings: {jobs} complete, 0 running, 0 waiting, 0 failed' in out
    logs = (place / 'work_dirs' / 'sweeps' / 'small' / 'workers').glob('*.log')
    assert 'Traceback' not in ''.join(log.read_text() for log in logs)

    monkeypatch.chdir(place)
    shown = call('sweep.py', 'status', 'small')
    assert 'lora' in shown.out
    assert '2/2' in shown.out
    exported = call('sweep.py', 'export', 'small', 'tuned')
    assert exported.out.count('gleam-mm train tuned/tiny_') == len(DATASETS) * 2

    reported = call('report.py', 'small', '--out', 'report')
    assert reported.code == 0, reported.err
    with Path('report', 'finals.csv').open(encoding='utf-8', newline='') as file:
        told = {(r['method'], r['dataset']): float(r['accuracy']) for r in csv.DictReader(file)}
    finals = [cell for cell in cells(place, 'complete') if cell.job.phase == 'final']
    assert told == {(c.job.method, c.job.dataset): c.accuracy for c in finals}
    assert len(told) == len(DATASETS) * 2


def test_mistakes_take_one_line(call):
    for arguments, message in [
        (['run', '--methods', 'lora'], '--backbone: give it as a flag or in the file'),
        (['run', 'nowhere'], 'nowhere: no such file'),
        (['status', 'nowhere'], 'nowhere: no such study'),
        (['estimate', 'nowhere'], 'nowhere: no such file, and no sweep of'),
        (['estimate', 'vtab', '--workers', '0'], '--workers 0: at least 1'),
        (['status', 'postgresql://127.0.0.1:1/x'], 'cannot use this database'),
    ]:
        done = call('sweep.py', *arguments)
        assert done.code == 2
        assert done.err.startswith('sweep.py: error: ') and message in done.err
        assert len(done.err.splitlines()) == 1


@pytest.mark.slow
def test_failures_are_told_and_run_again(place, call, monkeypatch):
    monkeypatch.chdir(place)
    (place / 'go').touch()
    (place / 'break').touch()
    text = SWEEP.format(datasets=['vtab-kitti'], options=OPTIONS).replace('grid', '# grid')
    (place / 'failing.py').write_text(text)
    done = call('sweep.py', 'run', 'failing.py', '--methods', 'linear')
    assert done.code == 1, done.err
    assert '[1/1] final linear vtab-kitti seed 0  FAILED: ZeroDivisionError: broken' in done.out
    (place / 'break').unlink()
    again = call('sweep.py', 'resume', 'failing', '--retry-failed')
    assert again.code == 0, again.err
    assert '1 complete, 0 running, 0 waiting, 0 failed' in again.out
