"""Kills trainings at random moments, takes them up again and compares them with whole ones.

    python tests/campaign/kills.py --kills 36 --seed 0

Every trial is a training of a few epochs of one kind of loop, in a process of its own that gets a
signal after a random time, one in four of them twice. It is resumed until it ends. Weights,
averaged weights, the adapter and its metadata, the best checkpoints, rates, curves and the names of
all files must be those of the run that nothing has stopped, bit for bit. Prints what was tried and
what passed, by kind, and exits with 1 if anything has failed.
"""

import argparse
import collections
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from unittest.mock import MagicMock, patch

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / 'engine')]

import gleam_mm  # noqa: E402, F401

# isort: split

import torch  # noqa: E402
from conftest import make_classifier as fixture  # noqa: E402
from mmengine.registry import DefaultScope  # noqa: E402
from runs import VARIANTS, assert_same, build_variant, final_state  # noqa: E402

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
AGAIN = 0.25  # how many are killed twice
RESTARTS = 5

make_classifier = fixture.__wrapped__()


def train(variant: str, folder: Path) -> None:
    """Trains to the end, from wherever the folder stands."""
    build_variant(variant, make_classifier, folder).train()


def in_process(variant: str, folder: Path, number: int = 0, after: float = 0.0) -> int:
    """Trains in a process of its own, which gets a signal after some seconds; its wait status."""
    process = os.fork()
    if process == 0:
        sys.stdout = sys.stderr = open(os.devnull, 'w', encoding='utf-8')  # noqa: PTH123, SIM115
        try:
            train(variant, folder)
            os._exit(0)
        except KeyboardInterrupt:
            os._exit(130)
        finally:
            os._exit(1)
    if number:
        timer = threading.Timer(after, os.kill, (process, number))
        timer.start()
    status = os.waitpid(process, 0)[1]
    if number:
        timer.cancel()
        timer.join()
    return status


def main() -> None:
    """Runs the campaign."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--kills', type=int, default=36, help='how many trainings to kill')
    parser.add_argument('--seed', type=int, default=0, help='decides what is killed, and when')
    args = parser.parse_args()
    generator = random.Random(args.seed)
    torch.set_num_threads(1)
    tried, passed = collections.Counter(), collections.Counter()
    folder = Path(tempfile.mkdtemp(prefix='kills-'))
    whole, seconds = {}, {}
    hits = 0
    names = list(VARIANTS)
    for trial in range(args.kills):
        variant = names[trial % len(names)]
        if variant not in whole:
            start = time.monotonic()
            status = in_process(variant, folder / 'whole' / variant)
            seconds[variant] = time.monotonic() - start
            if status:
                raise SystemExit(f'{variant}: does not train')
            whole[variant] = final_state(folder / 'whole' / variant)
        killed = folder / str(trial)
        for _ in range(1 + (generator.random() < AGAIN)):
            number = generator.choice(SIGNALS)
            after = generator.uniform(0.02, 1.0) * seconds[variant]
            hits += in_process(variant, killed, number, after) != 0
        tried[variant] += 1
        try:
            for _ in range(RESTARTS):
                if in_process(variant, killed) == 0:
                    break
            assert_same(final_state(killed), whole[variant])
            passed[variant] += 1
        except Exception as error:
            print(f'trial {trial} ({variant}): {error!r}', flush=True)
            traceback.print_exc()
        shutil.rmtree(killed, ignore_errors=True)
    shutil.rmtree(folder)
    width = max(map(len, tried))
    for variant in tried:
        print(f'{variant:<{width}}  {passed[variant]:>3} of {tried[variant]:>3}')
    total = sum(tried.values())
    print(f'{"all":<{width}}  {sum(passed.values()):>3} of {total:>3}, {hits} signals struck')
    sys.exit(passed.total() != total)


if __name__ == '__main__':
    figure = MagicMock(return_value=(MagicMock(), MagicMock(), MagicMock()))
    with (
        DefaultScope.overwrite_default_scope('gleam_mm'),
        patch('mmengine.runner.runner.collect_env', dict),
        patch('mmengine.visualization.Visualizer._initialize_fig', figure),
    ):
        main()
