"""Joining processes on the CPU; tests/tools trains in two processes."""

import os
import socket
import subprocess
import sys
from unittest import mock

import pytest
import torch
from mmengine.config import Config

from gleam_mm.engine import dist, init_dist


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    monkeypatch.setattr(dist, 'get_device', lambda: 'cpu')
    known = {'MASTER_ADDR', 'MASTER_PORT', 'SLURM_NODELIST'}
    for variables in dist._VARIABLES.values():
        known |= {*variables.keys(), *variables.values()}
    with mock.patch.dict(os.environ):  # what is set for torch.distributed is gone afterwards
        for name in known:
            os.environ.pop(name, None)
        yield


def test_nothing_to_do_without_a_launcher():
    config = Config(dict(launcher='none'))
    init_dist(config)
    assert 'model_wrapper_cfg' not in config


def test_gpus_are_left_to_mmengine(monkeypatch):
    monkeypatch.setattr(dist, 'get_device', lambda: 'cuda')
    config = Config(dict(launcher='pytorch'))
    init_dist(config)
    assert not dist.distributed.is_initialized()
    assert config.model_wrapper_cfg.bucket_cap_mb == 25
    assert 'device_ids' not in config.model_wrapper_cfg  # MMEngine knows which


def test_more_processes_than_gpus(monkeypatch):
    monkeypatch.setattr(dist, 'get_device', lambda: 'cuda')
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setenv('LOCAL_RANK', '1')
    init_dist(Config(dict(launcher='pytorch')))
    monkeypatch.setenv('LOCAL_RANK', '2')
    with pytest.raises(ValueError, match=r'process 2 .* has no GPU of its own, .* sees 2'):
        init_dist(Config(dict(launcher='pytorch')))


@pytest.mark.parametrize(
    'launcher, message',
    [
        ('pytorch', 'RANK, WORLD_SIZE, LOCAL_RANK not set .*dist_train.sh or torchrun'),
        ('slurm', 'SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID not set .*srun'),
        ('mpi', 'OMPI_COMM_WORLD_RANK.* not set .*mpirun'),
        ('ray', "unknown launcher 'ray': use one of none, pytorch, slurm, mpi"),
    ],
)
def test_process_that_no_launcher_started(launcher, message):
    with pytest.raises(ValueError, match=message):
        init_dist(Config(dict(launcher=launcher)))


def test_mpi_needs_the_address_of_the_first_machine(monkeypatch):
    for name in dist._VARIABLES['mpi'].values():
        monkeypatch.setenv(name, '0')
    with pytest.raises(ValueError, match='MASTER_ADDR is not set'):
        init_dist(Config(dict(launcher='mpi')))


# Each process adds up the ranks, and wraps a model as the runner does.
WORKER = """
import torch
from mmengine.config import Config
from gleam_mm.engine import init_dist
from gleam_mm.registry import MODEL_WRAPPERS
config = Config(dict(
    launcher='slurm', env_cfg=dict(dist_cfg=dict(backend='nccl', timeout=600)),
    model_wrapper_cfg=dict(static_graph=False)))
init_dist(config)
total = torch.tensor(torch.distributed.get_rank() + 1)
torch.distributed.all_reduce(total)
model = MODEL_WRAPPERS.build(
    config.model_wrapper_cfg, default_args=dict(module=torch.nn.Linear(1, 1), device_ids=[0]))
print(torch.distributed.get_backend(), total.item(), type(model).__name__, model.static_graph)
torch.distributed.destroy_process_group()
"""


def test_processes_find_each_other(monkeypatch):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    monkeypatch.setenv('MASTER_ADDR', '127.0.0.1')
    monkeypatch.setenv('MASTER_PORT', str(port))
    names = dist._VARIABLES['slurm']
    processes = []
    for rank in ('0', '1'):
        monkeypatch.setenv(names['RANK'], rank)
        monkeypatch.setenv(names['LOCAL_RANK'], rank)
        monkeypatch.setenv(names['WORLD_SIZE'], '2')
        processes.append(
            subprocess.Popen([sys.executable, '-c', WORKER], stdout=subprocess.PIPE, text=True)
        )
    outputs = [process.communicate()[0] for process in processes]
    assert outputs == ['gloo 3 MMDistributedDataParallel False\n'] * 2


@pytest.mark.parametrize('launcher', ['pytorch', 'slurm', 'mpi'])
def test_torch_is_told_what_the_launcher_knows(launcher, monkeypatch):
    for name, value in zip(dist._VARIABLES[launcher].values(), '352', strict=True):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv('MASTER_ADDR', 'node3')
    joined = []
    monkeypatch.setattr(
        dist.distributed, 'init_process_group', lambda *args, **kwargs: joined.append(args)
    )
    init_dist(Config(dict(launcher=launcher)))
    assert [os.environ[k] for k in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK')] == ['3', '5', '2']
    assert (os.environ['MASTER_ADDR'], os.environ['MASTER_PORT']) == ('node3', '29500')
    assert joined == [('gloo',)]


def test_what_is_started_again_on_several_machines_needs_a_new_store(monkeypatch):
    for name, value in zip(dist._VARIABLES['pytorch'].values(), '120', strict=True):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv('GROUP_WORLD_SIZE', '2')
    joined = []
    monkeypatch.setattr(
        dist.distributed, 'init_process_group', lambda *args, **kwargs: joined.append(kwargs)
    )
    for count, shared in (('0', 'True'), ('1', 'False')):
        monkeypatch.setenv('TORCHELASTIC_RESTART_COUNT', count)
        monkeypatch.setenv('TORCHELASTIC_USE_AGENT_STORE', shared)
        init_dist(Config(dict(launcher='pytorch')))
    assert joined == [dict(timeout=None)] * 2
    monkeypatch.setenv('TORCHELASTIC_USE_AGENT_STORE', 'True')
    with pytest.raises(ValueError, match='--rdzv-backend=c10d'):
        init_dist(Config(dict(launcher='pytorch')))


def test_slurm_asks_for_the_first_machine(monkeypatch, tmp_path):
    scontrol = tmp_path / 'scontrol'
    scontrol.write_text('#!/bin/sh\necho "$@" >&2\nprintf "node3\\nnode4\\n"\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}:/usr/bin:/bin')
    monkeypatch.setenv('SLURM_NODELIST', 'node[3-4]')
    for name in dist._VARIABLES['slurm'].values():
        monkeypatch.setenv(name, '0')
    monkeypatch.setattr(dist.distributed, 'init_process_group', lambda *args, **kwargs: None)
    init_dist(Config(dict(launcher='slurm', env_cfg=dict(dist_cfg=dict(port=1234)))))
    assert os.environ['MASTER_ADDR'] == 'node3'
    assert os.environ['MASTER_PORT'] == '1234'


@pytest.mark.parametrize('value', ['abc', '', '-1', '1.5'])
def test_a_number_that_is_none_is_named(value, monkeypatch):
    for name in ('RANK', 'LOCAL_RANK'):
        monkeypatch.setenv(name, '0')
    monkeypatch.setenv('WORLD_SIZE', value)
    with pytest.raises(ValueError, match=f"WORLD_SIZE='{value}' in the environment is no number"):
        init_dist(Config(dict(launcher='pytorch')))
