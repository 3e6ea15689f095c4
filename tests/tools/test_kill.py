"""Training that is killed and taken up again, and checkpoints that must not be loaded."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tool_folder import TOOLS

from gleam_mm.checkpoint import load_from_local, read_state_dict
from gleam_mm.engine import find_resumable

CONFIG = """
_base_ = ['{config}']
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))
custom_imports = dict(imports=['killer'])
custom_hooks = [dict(type='Killer')]
"""

# SIGKILL while a file is written: half of it is on disk then.
KILLER = """
import os
import signal
import subprocess
import sys
import time
from mmengine.hooks import Hook
from gleam_mm.registry import HOOKS

when, _, what = os.environ.get('KILL', '').partition(' ')


def fsync(descriptor, fsync=os.fsync):
    if os.readlink(f'/proc/self/fd/{descriptor}').endswith(what):
        os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(descriptor)


if when == 'writing':
    os.fsync = fsync


@HOOKS.register_module()
class Killer(Hook):
    pass
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory, config):
    folder = tmp_path_factory.mktemp('killed')
    (folder / 'tiny.py').write_text(CONFIG.format(config=config))
    (folder / 'killer.py').write_text(KILLER)
    return folder


@pytest.fixture(scope='module')
def train(run, folder):
    def start(work_dir, kill=''):
        flags = ['--work-dir', work_dir, '--resume', 'auto']
        return run('train.py', folder / 'tiny.py', *flags, cwd=folder, KILL=kill)

    return start


@pytest.fixture(scope='module')
def uninterrupted(train, folder):
    done = train('whole')
    assert done.code == 0, done.err
    return done


def kept(work_dir):
    return sorted(
        path.name for path in work_dir.iterdir() if path.suffix in ('.pth', '.safetensors')
    )


@pytest.mark.slow
def test_killed_and_resumed_ends_like_the_uninterrupted_run(train, uninterrupted, folder):
    # Every other moment and loop: tests/engine/test_resume.py, and tests/campaign at random.
    kill = 'writing epoch_2.pth'
    work_dir = folder / re.sub(r'\W', '-', kill)
    killed = train(work_dir.name, kill)
    assert killed.code == -signal.SIGKILL, killed.err
    assert find_resumable(work_dir) is not None
    assert list(work_dir.glob('.writing-*'))
    resumed = train(work_dir.name)
    assert resumed.code == 0, resumed.err
    for row in ('accuracy', 'validation'):
        assert resumed.row(row) == uninterrupted.row(row)
    assert kept(work_dir) == kept(folder / 'whole')
    assert not list(work_dir.glob('.writing-*'))
    assert_same_checkpoint(work_dir / 'epoch_3.pth', folder / 'whole' / 'epoch_3.pth')


def assert_same_checkpoint(path, expected):
    ours, theirs = read_state_dict(path), read_state_dict(expected)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    hubs = [load_from_local(str(p), 'cpu')['message_hub'] for p in (path, expected)]
    for told in (
        lambda hub: hub['runtime_info']['best_score'],
        lambda hub: hub['log_scalars']['val/accuracy/top1'].data[0].tolist(),
        lambda hub: hub['log_scalars']['train/loss'].data[0].tolist(),
    ):
        assert told(hubs[0]) == told(hubs[1])


class Crafted:
    """Pickles as a call, as a crafted checkpoint does; harmless here: it touches a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.fixture
def marker(tmp_path):
    return tmp_path / 'ran'


@pytest.fixture(params=['weights', 'meta', 'message_hub'])
def crafted(request, marker, tmp_path):
    """Looks like a checkpoint, and would run code if it were loaded unsafely."""
    content = {'meta': {'epoch': 1, 'iter': 4}, 'state_dict': {}, 'message_hub': {}}
    content[request.param] = Crafted(marker)
    torch.save(content, tmp_path / 'crafted.pth')
    return tmp_path / 'crafted.pth'


@pytest.mark.parametrize('way', ['resume', 'load_from', 'test'])
def test_crafted_checkpoint_is_refused(way, crafted, marker, call, config):
    done = {
        'resume': lambda: call('train.py', config, '--resume', crafted),
        'load_from': lambda: call('train.py', config, '--cfg-options', f'load_from={crafted}'),
        'test': lambda: call('test.py', config, crafted),
    }[way]()
    assert done.code == 2
    assert f'{crafted}: refused' in done.err
    assert 'Only safe loading is done' in done.err
    assert not marker.exists()


# Signals that can be heeded

SLEEPER = """
import os
import time
from mmengine.hooks import Hook
from gleam_mm.registry import HOOKS


@HOOKS.register_module()
class Sleeper(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        open('training', 'w').close()
        time.sleep(60)
"""


@pytest.mark.parametrize(
    ('number', 'code'), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
@pytest.mark.parametrize(
    ('program', 'told'),
    [('tools/train.py', 'train.py'), ('bin/gleam-mm', 'gleam-mm'), ('x/__main__.py', 'gleam-mm')],
)
def test_tools_end_in_one_line_while_they_are_imported(number, code, program, told):
    # A tool that is still importing: the signal comes as soon as it has said how it takes it.
    script = f"""
import os, signal, sys
sys.argv[0] = {program!r}
class Importing:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] == 'mmengine':
            os.kill(os.getpid(), {int(number)})
sys.meta_path.insert(0, Importing())
import gleam_mm_cli.flags
"""
    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True)
    assert done.returncode == code
    assert done.stderr.startswith(f'{told}: ') and done.stderr.count('\n') == 1


@pytest.mark.slow
def test_a_training_that_is_ended_leaves_no_workers(tmp_path, config):
    (tmp_path / 'tiny.py').write_text(
        f"_base_ = ['{config}']\n"
        "custom_imports = dict(imports=['sleeper'])\n"
        "custom_hooks = [dict(type='Sleeper')]\n"
        'train_dataloader = dict(num_workers=2)\n'
    )
    (tmp_path / 'sleeper.py').write_text(SLEEPER)
    process = subprocess.Popen(
        [sys.executable, TOOLS / 'train.py', 'tiny.py', '--work-dir', 'run'],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not (tmp_path / 'training').exists() and process.poll() is None:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    err = process.communicate()[1]
    assert process.returncode == 130
    assert err.splitlines()[-1] == 'train.py: interrupted' and 'Traceback' not in err
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # nobody is left in its group
