"""Five tasks, five small adapters, one backbone: trained, banked, and asked in a mixed stream.

Trains GLEAM-L on five tasks of MiniVTAB with vit-mini, a few minutes in all; what is
trained already is not repeated. Then one `AdapterBank` gets test pictures of all tasks in a random
order, in batches of 32, and each adapter alone, in a `Predictor`, gets those of its own task.
Prints accuracies of both, how many predictions differ, and the throughput of the mixed stream
against batches of one task.

    python benchmarks/bank_demo.py [--epochs 6] [--pictures 400] [--work-dir work_dirs/bank]
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

import gleam_mm
from gleam_mm.checkpoint import ADAPTER, read_adapter
from gleam_mm.minivtab.dataset import MiniVTAB

TASKS = ('digits', 'letters', 'textures', 'land', 'defects')
BATCH, ROUNDS = 32, 5


def train(task: str, epochs: int, folder: Path) -> Path:
    """The adapter of a training, by the command that anybody would give."""
    work_dir = folder / task
    path = work_dir / ADAPTER
    if not path.exists() or read_adapter(path)[1]['epoch'] < epochs:
        print(f'training {task} ...', flush=True)
        command = [sys.executable, '-m', 'gleam_mm_cli', 'train', f'vit-mini_gleam-l_mini-{task}']
        options = [f'train_cfg.max_epochs={epochs}', 'train_cfg.val_interval=1000']
        subprocess.run(
            [*command, '--work-dir', str(work_dir), '--resume', 'auto', '--cfg-options', *options],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--epochs', type=int, default=6)
    parser.add_argument('--pictures', type=int, default=400, help='test pictures of each task')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/bank'))
    args = parser.parse_args()

    adapters = {task: train(task, args.epochs, args.work_dir) for task in TASKS}
    bank = gleam_mm.AdapterBank('vit-mini', adapters)
    memory = bank.memory
    print(
        f'one backbone of {memory.backbone / 1e6:.1f} MB, {memory.tasks} adapters of '
        f'{memory.adapters / 1e6:.2f} MB with heads of {memory.heads / 1e6:.2f} MB'
    )

    stream: list[tuple[str, np.ndarray, str]] = []
    for task in TASKS:
        data = MiniVTAB(task, 'test', pipeline=[])
        for index in np.random.default_rng(0).permutation(len(data))[: args.pictures]:
            sample = data[int(index)]
            stream.append((task, sample['img'], data.metainfo['classes'][sample['gt_label']]))
    order = np.random.default_rng(1).permutation(len(stream))
    mixed = [stream[index] for index in order]
    told = bank([picture for _, picture, _ in mixed], tasks=[task for task, _, _ in mixed])

    print(f'{"task":10}{"bank":>8}{"alone":>8}{"differ":>8}   of {args.pictures} pictures')
    for task, path in adapters.items():
        mine = [i for i, (name, _, _) in enumerate(mixed) if name == task]
        alone = gleam_mm.Predictor(path)([mixed[i][1] for i in mine])
        differ = sum(told[i].label != one.label for i, one in zip(mine, alone, strict=True))
        right = [
            100 * sum(one.label == mixed[i][2] for i, one in zip(mine, found, strict=True))
            for found in ([told[i] for i in mine], alone)
        ]
        print(f'{task:10}{right[0] / len(mine):8.2f}{right[1] / len(mine):8.2f}{differ:8}')

    prepared = [bank.prepare(picture, task) for task, picture, _ in mixed[: 4 * BATCH]]
    single = [bank.prepare(picture, TASKS[0]) for _, picture, _ in mixed[: 4 * BATCH]]
    seconds: dict[str, list[float]] = {'one task': [], 'five tasks': []}
    for turn in range(ROUNDS + 1):  # the first is not counted
        for name, pictures in (('one task', single), ('five tasks', prepared)):
            start = time.process_time() if bank.device.type == 'cpu' else time.perf_counter()
            bank.scores(pictures)
            end = time.process_time() if bank.device.type == 'cpu' else time.perf_counter()
            if turn:
                seconds[name].append(end - start)
    ratio = statistics.median(a / b for a, b in zip(*seconds.values(), strict=True))
    for name, took in seconds.items():
        print(f'{name:10}{len(prepared) / statistics.median(took):8.0f} images/s')
    print(f'mixed against one task: {ratio:.2f}, {torch.get_num_threads()} threads')


if __name__ == '__main__':
    main()
