"""tools/dist_train.sh: two processes on the CPU train as one does on the same batches."""

import json
import os
import socket

import pytest
from tool_folder import TOOLS

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


@pytest.fixture
def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def test_two_processes_train_as_one(run, config, tmp_path, free_port):
    (tmp_path / 'whole_loss.py').write_text(HOOK)
    for name, batch_size in (('one', 16), ('two', 8)):
        text = CONFIG.format(base=str(config), batch_size=batch_size)
        (tmp_path / f'{name}.py').write_text(text)
    one = run('train.py', 'one.py', cwd=tmp_path)
    assert one.code == 0, one.err
    two = run('dist_train.sh', 'two.py', '2', '--seed', '0', cwd=tmp_path, PORT=str(free_port))
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
    tested = run('dist_test.sh', 'two.py', checkpoint, '2', cwd=tmp_path, PORT=str(free_port))
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


def test_mistakes(run, config, tmp_path, free_port):
    usage = run('dist_train.sh', config, cwd=tmp_path)
    assert usage.code == 2
    assert usage.err.startswith('usage: dist_train.sh CONFIG GPUS')
    assert run('dist_train.sh', config, 'many', cwd=tmp_path).code == 2
    assert run('slurm_train.sh', 'partition', cwd=tmp_path).code == 2
