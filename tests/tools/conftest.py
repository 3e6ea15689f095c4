"""Running the tools as a user would, on a model that trains in seconds."""

import contextlib
import fcntl
import os
import pty
import re
import runpy
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from experiments import begin_anew
from tiny_vit import TINY_VIT
from tool_folder import TOOLS

from gleam_mm.registry import MODELS

BASES = TOOLS.parent / 'configs' / '_base_'

CONFIG = """
_base_ = [
    '{bases}/methods/gleam-t.py',
    '{bases}/schedules/petl_100e.py',
    '{bases}/default_runtime.py',
]
model = dict(
    type='PETLClassifier',
    backbone=dict(
        type='VisionTransformer',
        init_cfg=dict(type='Pretrained', checkpoint='{weights}'),
        **{vit},
    ),
    head=dict(type='LinearClsHead', in_channels=32, num_classes=None),
    petl=_base_.method,
)
data_preprocessor = dict(num_classes=None, mean=[0, 0, 0], std=[255, 255, 255])


def _loader(split, images, shuffle=False):
    dataset = dict(
        type='MiniVTAB', split=split, indices=images, pipeline=[dict(type='PackInputs')]
    )
    sampler = dict(type='DefaultSampler', shuffle=shuffle)
    return dict(batch_size=16, num_workers=0, dataset=dataset, sampler=sampler)


train_dataloader = _loader('train800', 64, shuffle=True)
val_dataloader = _loader('val200', 32)
test_dataloader = _loader('test', 48)
val_cfg = test_cfg = dict()
val_evaluator = test_evaluator = dict(type='Accuracy', topk=1)

train_cfg = dict(max_epochs=3)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', begin=1, convert_to_iter_based=True),
]
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(max_keep_ckpts=-1))
"""


class Finished(NamedTuple):
    """What a tool came to."""

    code: int
    out: str
    err: str

    def row(self, name):
        """The text behind ``name`` in a tool's summary."""
        return re.search(rf'^{re.escape(name)} +(.+)$', self.out, re.MULTILINE).group(1)


@pytest.fixture(scope='session')
def weights(tmp_path_factory):
    """Weights of the tiny backbone."""
    torch.manual_seed(0)
    backbone = MODELS.build(dict(type='VisionTransformer', **TINY_VIT))
    file = tmp_path_factory.mktemp('weights') / 'tiny.pth'
    torch.save(backbone.state_dict(), file)
    return file


@pytest.fixture(scope='session')
def config(tmp_path_factory, weights):
    """A config that trains the tiny backbone on a few handwritten digits."""
    file = tmp_path_factory.mktemp('configs') / 'tiny.py'
    file.write_text(CONFIG.format(bases=BASES, vit=TINY_VIT, weights=weights))
    return file


def _environment(extra):
    return {
        **os.environ,
        'OMP_NUM_THREADS': '1',
        'PATH': f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}',
        **extra,
    }


@pytest.fixture(scope='session')
def run():
    """Runs a tool in a process of its own: ``run('train.py', 'config.py', cwd=...)``."""

    def start(tool, *arguments, cwd, **environment):
        program = ['bash'] if tool.endswith('.sh') else [sys.executable]
        done = subprocess.run(
            [*program, TOOLS / tool, *map(str, arguments)],
            cwd=cwd,
            env=_environment(environment),
            capture_output=True,
            text=True,
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    return start


@pytest.fixture
def start_together(tmp_path):
    """Runs several tools at once; where there are NNODES, the number of each is its NODE_RANK."""

    def start(*calls, **environment):
        processes = []
        for number, (tool, *arguments) in enumerate(calls):
            program = ['bash'] if tool.endswith('.sh') else [sys.executable]
            processes.append(
                subprocess.Popen(
                    [*program, TOOLS / tool, *map(str, arguments)],
                    cwd=tmp_path,
                    env=_environment({**environment, 'NODE_RANK': str(number)}),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        told = [process.communicate() for process in processes]
        return [Finished(p.returncode, *t) for p, t in zip(processes, told, strict=True)]

    return start


@pytest.fixture(scope='session')
def run_on_terminal():
    """Runs a tool whose standard output is a terminal of 100 columns."""

    def start(tool, *arguments, cwd):
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack('HHHH', 30, 100, 0, 0))
        process = subprocess.Popen(
            [sys.executable, TOOLS / tool, *map(str, arguments)],
            cwd=cwd,
            env=_environment({'TERM': 'xterm'}),
            stdout=theirs,
            stderr=subprocess.PIPE,
        )
        os.close(theirs)
        shown = b''
        with contextlib.suppress(OSError):  # Linux says that the other end is closed like this
            while chunk := os.read(ours, 4096):
                shown += chunk
        err = process.communicate()[1]
        os.close(ours)
        return Finished(process.returncode, shown.decode(), err.decode())

    return start


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Runs a tool in this process, which is faster where it stops early."""
    monkeypatch.chdir(tmp_path)

    def start(tool, *arguments):
        begin_anew(monkeypatch)
        monkeypatch.setattr(sys, 'argv', [str(TOOLS / tool), *map(str, arguments)])
        code = 0
        try:
            runpy.run_path(str(TOOLS / tool), run_name='__main__')
        except SystemExit as stop:
            code = stop.code or 0
        return Finished(code, *capsys.readouterr())

    return start
