"""How much faster two sweep workers are than one, on a study of 12 trainings.

Both numbers of workers run the same study from its start, by turns, with as many threads in all as
there are cores. Trainings are of vit-mini on handwritten digits.

    python benchmarks/sweep.py
    python benchmarks/sweep.py --epochs 2 --rounds 3
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOOL = Path(__file__).resolve().parents[1] / 'tools' / 'sweep.py'


def sweep(workers: int, epochs: int, folder: Path) -> float:
    """Seconds that a whole study takes, from the command to its end."""
    options = [
        f'train_cfg.max_epochs={epochs}',
        'param_scheduler.0.end=1',
        'param_scheduler.1.begin=1',
    ]
    environment = {k: v for k, v in os.environ.items() if not k.endswith('_NUM_THREADS')}
    start = time.monotonic()
    subprocess.run(
        [
            *(sys.executable, TOOL, 'run', '--backbone=vit-mini', '--datasets=mini-digits'),
            *('--methods=gleam-t,lora', '--seeds=6', f'--workers={workers}', '--options', *options),
        ],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--epochs', type=int, default=2, help='of each training')
    parser.add_argument('--rounds', type=int, default=1, help='times that each is measured')
    parser.add_argument('--workers', type=int, nargs='+', default=[1, 2])
    args = parser.parse_args()
    seconds: dict[int, list[float]] = {workers: [] for workers in args.workers}
    for _ in range(args.rounds):
        for workers, taken in seconds.items():
            with tempfile.TemporaryDirectory() as folder:
                taken.append(sweep(workers, args.epochs, Path(folder)))
            print(f'{workers} workers: {taken[-1]:.0f} s', flush=True)
    first = statistics.median(seconds[args.workers[0]])
    for workers, taken in seconds.items():
        median = statistics.median(taken)
        print(f'{workers} workers: {median:.0f} s, {first / median:.2f} times as fast')


if __name__ == '__main__':
    main()
