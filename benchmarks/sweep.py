"""How much faster two sweep workers are than one, on a study of 12 trainings.

Contenders run the same study from its start, by turns. Workers share the cores as sweeps let them:
on two cores a worker alone has two threads, and two workers have one each. `1x1` is one worker with
one thread, which leaves the second core alone. Trainings are of vit-mini on handwritten digits.

    python benchmarks/sweep.py
    python benchmarks/sweep.py --contenders 1 2 --rounds 3
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


def sweep(contender: str, epochs: int, folder: Path) -> float:
    """Seconds that a whole study takes, from the command to its end."""
    workers, _, threads = contender.partition('x')
    options = [
        f'train_cfg.max_epochs={epochs}',
        'param_scheduler.0.end=1',
        'param_scheduler.1.begin=1',
    ]
    environment = {k: v for k, v in os.environ.items() if not k.endswith('_NUM_THREADS')}
    if threads:
        environment['OMP_NUM_THREADS'] = environment['MKL_NUM_THREADS'] = threads
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
    parser.add_argument(
        '--contenders',
        nargs='+',
        default=['1', '1x1', '2'],
        metavar='WORKERS[xTHREADS]',
        help='the first is the one that others are compared with',
    )
    args = parser.parse_args()
    seconds: dict[str, list[float]] = {contender: [] for contender in args.contenders}
    for _ in range(args.rounds):
        for contender, taken in seconds.items():
            with tempfile.TemporaryDirectory() as folder:
                taken.append(sweep(contender, args.epochs, Path(folder)))
            print(f'{contender}: {taken[-1]:.0f} s', flush=True)
    first = statistics.median(seconds[args.contenders[0]])
    for contender, taken in seconds.items():
        median = statistics.median(taken)
        print(f'{contender}: {median:.0f} s, {first / median:.2f} times as fast')


if __name__ == '__main__':
    main()
