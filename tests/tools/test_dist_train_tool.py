"""The scripts that start processes: two on the CPU train as one does on the same batches."""

import json
import os
import re
import socket
import sys

import pytest
import torch
from tool_folder import TOOLS

from gleam_mm.checkpoint import read_adapter
from gleam_mm_cli.sweep import parse_args

# The log has the loss of the first process's half of a batch; this hook writes that of the whole.
HOOK = """
import json
from pathlib import Path

from mmengine.dist import all_reduce, get_rank
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from gleam_mm.registry import HOOKS


@HOOKS.register_module()
class WholeLoss(Hook):
    def before_run(self, runner):
        self.losses = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        loss = outputs['loss'].detach().clone()
        all_reduce(loss, op='mean')
        self.losses.append(loss.item())

    def after_train(self, runner):
        wrapped = is_model_wrapper(runner.model)
        unused = wrapped and runner.model.find_unused_parameters
        if get_rank() == 0:
            found = dict(losses=self.losses, wrapped=wrapped, find_unused_parameters=unused)
            Path(runner.work_dir, 'found.json').write_text(json.dumps(found))
"""
# With one expert the gate has nothing to choose, so the noise of the gate, which processes draw for
# themselves, makes no difference.
CONFIG = """
_base_ = {base!r}
custom_imports = dict(imports=['whole_loss'])
custom_hooks = [dict(type='WholeLoss')]
model = dict(petl=dict(num_experts=1, top_k=1))
train_dataloader = dict(batch_size={batch_size})
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return str(probe.getsockname()[1])


@pytest.mark.slow
def test_two_processes_train_as_one(run, config, tmp_path):
    (tmp_path / 'whole_loss.py').write_text(HOOK)
    for name, batch_size in (('one', 16), ('two', 8)):
        text = CONFIG.format(base=str(config), batch_size=batch_size)
        (tmp_path / f'{name}.py').write_text(text)
    one = run('train.py', 'one.py', cwd=tmp_path)
    assert one.code == 0, one.err
    two = run('dist_train.sh', 'two.py', '2', '--seed', '0', cwd=tmp_path, PORT=free_port())
    assert two.code == 0, two.err

    alone, together = (
        json.loads((tmp_path / 'work_dirs' / name / 'found.json').read_text())
        for name in ('one', 'two')
    )
    assert together['wrapped'] and not alone['wrapped']
    assert not together['find_unused_parameters']
    assert len(alone['losses']) == 3 * 4
    assert together['losses'] == pytest.approx(alone['losses'], abs=1e-4)
    assert two.row('accuracy') == one.row('accuracy')
    assert two.out.count('with the final weights') == 1  # one process tells

    checkpoint = 'work_dirs/two/epoch_3.pth'
    tested = run('dist_test.sh', 'two.py', checkpoint, '2', cwd=tmp_path, PORT=free_port())
    assert tested.code == 0, tested.err
    accuracy = float(two.row('accuracy').split()[0])
    assert float(tested.row('accuracy/top1')) == pytest.approx(accuracy, abs=0.005)


def test_slurm(run, tmp_path):
    """What srun would be called with."""
    srun = tmp_path / 'bin' / 'srun'
    srun.parent.mkdir()
    srun.write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    srun.chmod(0o755)
    path = f'{srun.parent}:{os.environ["PATH"]}'
    arguments = ['part', 'job', 'vit-b_lora_vtab-cifar', 'my dir', '--amp', '--seed', '3']
    options = {'PATH': path, 'GPUS': '2', 'SRUN_ARGS': '--quiet --time=5'}
    done = run('slurm_train.sh', *arguments, cwd=tmp_path, **options)
    assert done.code == 0, done.err
    words = done.out.splitlines()
    assert {'--partition=part', '--job-name=job', '--ntasks=2', '--gres=gpu:2'} <= set(words)
    assert {'--quiet', '--time=5'} <= set(words)
    tool = words.index(str(TOOLS / 'train.py'))
    assert words[tool + 1 :] == [
        *('vit-b_lora_vtab-cifar', '--work-dir', 'my dir', '--launcher', 'slurm'),
        *('--amp', '--seed', '3'),
    ]


# Prints what it is called with, and runs the script that Slurm makes of the last word.
SBATCH = """#!/bin/bash
printf '%s\\n' "${@:1:$#-2}"
[[ ${@: -2:1} == --wrap ]]
printf '#!/bin/sh\\n\\n%s\\n' "${@: -1}" >job
sh job &
echo "job $!"
wait
"""
PYTHON = """#!/bin/bash
printf 'python %s\\n' $$ "$@"
"""


@pytest.mark.parametrize('gpus', ['2', '0'])
def test_slurm_works_on_a_sweep(run, tmp_path, gpus, monkeypatch):
    """What sbatch is called with, and what a task of the array runs, by a process that is its own.

    The signal a minute before the end goes to that process alone.
    """
    folder = tmp_path / 'bin'
    folder.mkdir()
    for name, text in (('sbatch', SBATCH), ('python', PYTHON)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    storage = 'postgresql://me:a$b c@host/x'
    options = {'PATH': f'{folder}:{os.environ["PATH"]}', 'GPUS_PER_TASK': gpus}
    options |= {'SBATCH_ARGS': '--requeue --time=5'}
    flags = ['vtab', '--methods', 'lora', '--cfg-options', "model.petl.sites=['qkv', 'fc1']"]
    done = run('slurm_sweep.sh', 'part', 'job', '3', storage, *flags, cwd=tmp_path, **options)
    assert done.code == 0, done.err
    asked, _, ran = done.out.partition('job ')
    words = asked.splitlines()
    assert {'--partition=part', '--job-name=job', '--array=1-3', '--cpus-per-task=5'} <= set(words)
    assert {'--signal=B:TERM@60', '--requeue', '--time=5'} <= set(words)
    assert ('--gres=gpu:2' in words) == (gpus == '2')
    job, python, *words = [line.removeprefix('python ') for line in ran.splitlines()]
    assert python == job
    cards = ['--gpus', '0,1'] if gpus == '2' else []
    assert words == ['-u', str(TOOLS / 'sweep.py'), 'run', '--storage', storage, *flags, *cards]
    monkeypatch.setattr(sys, 'argv', words[1:])
    assert parse_args().storage == storage


def test_mistakes(run, config, tmp_path):
    usage = run('dist_train.sh', config, cwd=tmp_path)
    assert usage.code == 2
    assert usage.err.startswith('usage: dist_train.sh CONFIG GPUS')
    assert run('dist_train.sh', config, 'many', cwd=tmp_path).code == 2
    assert run('slurm_train.sh', 'partition', cwd=tmp_path).code == 2
    usage = run('slurm_sweep.sh', 'part', 'job', '3', 'sqlite:///x.db', cwd=tmp_path)
    assert usage.code == 2
    assert usage.err.startswith('usage: slurm_sweep.sh PARTITION JOB_NAME TASKS STORAGE')


# Kills one of two processes in the middle of the second epoch, once.
KILL = """
import os
import signal
from pathlib import Path

from mmengine.dist import get_rank
from mmengine.hooks import Hook

from gleam_mm.registry import HOOKS


@HOOKS.register_module()
class KillOnce(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        marker = Path(runner.work_dir, 'killed')
        if get_rank() == 1 and runner.epoch == 1 and batch_idx == 2 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
"""
TWO = """
_base_ = {base!r}
train_dataloader = dict(batch_size=8)
"""
STRUCK = f"""{TWO}
custom_imports = dict(imports=['kill_once'])
custom_hooks = [dict(type='KillOnce')]
"""


@pytest.fixture(scope='module')
def whole(run, config, tmp_path_factory):
    """What two processes on one machine come to that nothing strikes, and their adapter."""
    folder = tmp_path_factory.mktemp('whole')
    (folder / 'whole.py').write_text(TWO.format(base=str(config)))
    flags = ('--resume', 'auto', '--seed', '0')
    done = run('dist_train.sh', 'whole.py', '2', *flags, cwd=folder, PORT=free_port())
    assert done.code == 0, done.err
    return done, *adapter_of(folder / 'work_dirs' / 'whole')


@pytest.fixture
def struck(config, tmp_path):
    """The name of the same config, of which one process is killed."""
    (tmp_path / 'kill_once.py').write_text(KILL)
    (tmp_path / 'struck.py').write_text(STRUCK.format(base=str(config)))
    return 'struck.py'


def adapter_of(folder):
    return read_adapter(folder / 'adapter.safetensors')


def assert_killed(work_dir, *done):
    """One process was, as the one of its launchers says."""
    assert (work_dir / 'killed').exists()
    told = ''.join(launcher.err for launcher in done)
    assert 'Signal 9 (SIGKILL)' in told or 'exitcode: -9' in told


@pytest.mark.slow
def test_a_killed_process_is_started_again(run, struck, tmp_path, whole):
    """By torchrun, with the others, from the last checkpoint; as if nothing had happened."""
    arguments = (struck, '2', '--resume', 'auto', '--seed', '0')
    options = dict(PORT=free_port(), TORCHRUN_ARGS='--max-restarts=1')
    done = run('dist_train.sh', *arguments, cwd=tmp_path, **options)
    assert done.code == 0, done.err
    work_dir = tmp_path / 'work_dirs' / 'struck'
    assert_killed(work_dir, done)
    expected, tensors, metadata = whole
    assert done.row('accuracy') == expected.row('accuracy')
    ours, told = adapter_of(work_dir)
    assert told['metrics'] == metadata['metrics']
    assert all(torch.equal(ours[name], tensor) for name, tensor in tensors.items())


@pytest.mark.slow
def test_two_machines_and_shared_weights(struck, tmp_path, whole, start_together):
    """Two launchers with a process each, as on two machines, are as one with two.

    Sharded too, and where one of them is killed: then both launchers start theirs again.
    """
    (tmp_path / 'machines.py').write_text((tmp_path / struck).read_text().split('custom_')[0])
    port = free_port()
    again = f'--max-restarts=1 --rdzv-backend=c10d --rdzv-endpoint=127.0.0.1:{port} --rdzv-id=two'
    shared = ('--resume', 'auto', '--cfg-options', 'strategy=fsdp')
    _, tensors, metadata = whole
    for name, config, more, words in (
        ('ddp', 'machines.py', (), ''),
        ('fsdp', struck, shared, again),
    ):
        call = ('dist_train.sh', config, '1', '--seed', '0', '--work-dir', name, *more)
        both = start_together(call, call, PORT=port, NNODES='2', TORCHRUN_ARGS=words)
        assert [done.code for done in both] == [0, 0], both[0].err + both[1].err
        assert sum('with the final weights' in done.out for done in both) == 1
        ours, told = adapter_of(tmp_path / name)
        assert told['metrics']['test'] == metadata['metrics']['test']
        for key, tensor in tensors.items():
            torch.testing.assert_close(ours[key], tensor, atol=1e-5, rtol=0)
    assert_killed(tmp_path / 'fsdp', *both)


@pytest.mark.slow
def test_two_trainings_do_not_share_a_folder(config, tmp_path, start_together):
    """Started at the same moment, one trains, and the other one is told why it does not."""
    call = ('train.py', config, '--work-dir', 'both', '--cfg-options', 'train_cfg.max_epochs=10')
    call += ('param_scheduler=None',)
    first, second = sorted(start_together(call, call), key=lambda done: done.code)
    assert (first.code, second.code) == (0, 2), first.err + second.err
    assert re.search('another process is training|has a training already', second.err)
    assert len(second.err.strip().splitlines()) == 1
    _, metadata = adapter_of(tmp_path / 'both')
    assert metadata['epoch'] == 10
    assert len(list((tmp_path / 'both').glob('*/vis_data/scalars.json'))) == 1
