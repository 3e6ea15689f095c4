"""Several processes: gloo instead of NCCL where there is no GPU, and the model they share."""

import os
import subprocess
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.model import is_model_wrapper
from torch import distributed, nn
from torch.distributed import PrefixStore
from torch.distributed.rendezvous import rendezvous

from gleam_mm.models import ShardedDataParallel
from gleam_mm.registry import MODEL_WRAPPERS

DEFAULT_PORT = '29500'  # torch.distributed's own

# Which variables of the launcher say what torch.distributed wants to know.
_VARIABLES = {
    'pytorch': dict(RANK='RANK', WORLD_SIZE='WORLD_SIZE', LOCAL_RANK='LOCAL_RANK'),
    'slurm': dict(RANK='SLURM_PROCID', WORLD_SIZE='SLURM_NTASKS', LOCAL_RANK='SLURM_LOCALID'),
    'mpi': dict(
        RANK='OMPI_COMM_WORLD_RANK',
        WORLD_SIZE='OMPI_COMM_WORLD_SIZE',
        LOCAL_RANK='OMPI_COMM_WORLD_LOCAL_RANK',
    ),
}
_STARTED_BY = {
    'pytorch': 'tools/dist_train.sh or torchrun',
    'slurm': 'tools/slurm_train.sh or srun',
    'mpi': "Open MPI's mpirun",
}


def init_dist(cfg: Config) -> None:
    """Sets what wraps the model, and joins the processes on the CPU. Comes before the runner.

    MMEngine's own initialisation selects a CUDA device whatever the backend is, and fails in a CPU
    build of torch. It is skipped where there is a process group already. With an accelerator,
    joining is left to MMEngine, and without a launcher there is nothing to do.

    Args:
        cfg: The whole config. ``launcher`` and ``env_cfg.dist_cfg`` (``timeout`` in seconds,
            ``port`` for Slurm) are read. ``model_wrapper_cfg`` gets what it does not say: DDP which
            sends up to 25 MiB of gradients at once, so that those of an adapter are one message.

    Raises:
        ValueError: The launcher is unknown, did not start this process, started more processes
            than this machine has GPUs, or has started this one again where it cannot meet others.
    """
    launcher = cfg.get('launcher', 'none')
    if launcher == 'none':
        return
    cfg.model_wrapper_cfg = {
        'type': 'MMDistributedDataParallel',
        'broadcast_buffers': False,
        'find_unused_parameters': cfg.get('find_unused_parameters', False),
        # PyTorch's own default is as large, but for the first bucket, which is of 1 MiB.
        'bucket_cap_mb': 25,
        **(cfg.get('model_wrapper_cfg') or {}),
    }
    if get_device() != 'cpu':
        _check_gpus(launcher)
        return
    cfg.model_wrapper_cfg['device_ids'] = None
    if launcher not in _VARIABLES:
        raise ValueError(f"unknown launcher '{launcher}': use one of none, {', '.join(_VARIABLES)}")
    options = (cfg.get('env_cfg') or {}).get('dist_cfg') or {}
    if not distributed.is_initialized():
        _set_environment(launcher, options.get('port'))
        timeout = options.get('timeout')
        distributed.init_process_group(
            'gloo',
            timeout=None if timeout is None else timedelta(seconds=timeout),
            **_meeting_of_a_restart(),
        )


def _check_gpus(launcher: str) -> None:
    """Refuses a process without a GPU of its own, of which CUDA says that a list is too short."""
    variable = _VARIABLES.get(launcher, {}).get('LOCAL_RANK')
    if variable is None or launcher == 'slurm':  # where MMEngine lets several share a GPU
        return
    number, gpus = os.environ.get(variable, '0'), torch.cuda.device_count()
    if number.isdigit() and int(number) >= gpus > 0:
        raise ValueError(
            f'process {number} of this machine has no GPU of its own, for PyTorch sees {gpus}: '
            f'start as many processes a machine as it has GPUs, or set CUDA_VISIBLE_DEVICES= to '
            f'train on the CPU'
        )


def _meeting_of_a_restart() -> dict[str, Any]:
    """Where processes meet that torchrun has started again.

    The launcher's store still has the addresses of the processes before, which gloo takes for those
    of the new ones if it comes early, and waits for them. On several machines each launcher counts
    its own restarts, so that there is no name that all agree on: there the first process has to
    make a new store each time, as it does where tools/dist_train.sh starts torchrun with c10d.

    Raises:
        ValueError: Processes of several machines would meet in their launcher's store.
    """
    count = os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')
    if count == '0':
        return {}
    if os.environ.get('GROUP_WORLD_SIZE') != '1':
        if os.environ.get('TORCHELASTIC_USE_AGENT_STORE') == 'True':
            raise ValueError(
                'torchrun has started a process of several machines again, where it would wait for '
                'those before it: start tools/dist_train.sh with --rdzv-backend=c10d in '
                'TORCHRUN_ARGS, or torchrun with it and TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in '
                'the environment'
            )
        return {}
    store, rank, world_size = next(rendezvous('env://'))
    return dict(store=PrefixStore(f'restart_{count}', store), rank=rank, world_size=world_size)


def is_sharded(model_wrapper_cfg: Mapping | None) -> bool:
    """Whether what wraps a model, by its config, shards its frozen weights."""
    kind = (model_wrapper_cfg or {}).get('type')
    kind = MODEL_WRAPPERS.get(kind) if isinstance(kind, str) else kind
    return isinstance(kind, type) and issubclass(kind, ShardedDataParallel)


def unwrapped(model: nn.Module) -> Any:
    """The model inside of what distributes it among processes, or the model itself."""
    return model.module if is_model_wrapper(model) else model


def _set_environment(launcher: str, port: int | None) -> None:
    """Tells torch.distributed what the launcher knows."""
    missing = [name for name in _VARIABLES[launcher].values() if name not in os.environ]
    if missing:
        raise ValueError(
            f"launcher '{launcher}': {', '.join(missing)} not set in the environment; start with "
            f'{_STARTED_BY[launcher]}, or leave --launcher out to train in one process'
        )
    for name, source in _VARIABLES[launcher].items():
        if not os.environ[source].isdecimal():
            raise ValueError(f'{source}={os.environ[source]!r} in the environment is no number')
        os.environ[name] = os.environ[source]
    if port is not None:
        os.environ['MASTER_PORT'] = str(port)
    os.environ.setdefault('MASTER_PORT', DEFAULT_PORT)
    if 'MASTER_ADDR' not in os.environ:
        os.environ['MASTER_ADDR'] = _first_host(launcher)


def _first_host(launcher: str) -> str:
    """The machine of rank 0."""
    if launcher == 'slurm' and 'SLURM_NODELIST' in os.environ:
        command = ['scontrol', 'show', 'hostnames', os.environ['SLURM_NODELIST']]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]
    if launcher == 'pytorch':
        return '127.0.0.1'
    raise ValueError(
        f"launcher '{launcher}': MASTER_ADDR is not set in the environment; set it to the host "
        'name of the machine with rank 0'
    )
