"""Several processes that train together, forked from this one, which has everything imported."""

import os
import traceback
from pathlib import Path
from unittest import mock

import torch


def together(work, folder, number=2):
    """Calls ``work(rank)`` in processes that are joined by gloo, and waits for all of them.

    Args:
        work: What each does.
        folder: An empty folder in which they find each other.
        number: How many there are.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    processes = []
    for rank in range(number):
        process = os.fork()
        if process == 0:
            _join_and_work(work, Path(folder), rank, number)
        processes.append(process)
    codes = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]
    assert codes == [0] * number


def _join_and_work(work, folder, rank, number):
    try:
        told = dict(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(number))
        with mock.patch.dict(os.environ, told):
            torch.set_num_threads(1)
            store = torch.distributed.FileStore(str(folder / 'store'), number)
            torch.distributed.init_process_group('gloo', store=store, rank=rank, world_size=number)
            work(rank)
            torch.distributed.barrier()
            torch.distributed.destroy_process_group()
        os._exit(0)
    finally:  # whatever is raised, this is no second pytest
        traceback.print_exc()
        os._exit(1)
