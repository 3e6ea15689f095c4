"""Learns the classes of a dataset session by session, with one adapter (SSIAT).

Prints the accuracy on all classes so far after each session, its last value and its mean. Writes
them, and the adapter, to the work directory.
"""

import argparse
from typing import Any

from gleam_mm_cli.flags import Parser, overrides


def parse_args() -> argparse.Namespace:
    """Reads the flags."""
    parser = Parser(description=__doc__)
    parser.add_argument('config', help='a config, such as one of configs/incremental')
    parser.add_argument('--work-dir', help='where to write; default: work_dirs/<config>')
    parser.add_seed()
    parser.add_cfg_options('incremental.sessions=5 incremental.shift=False')
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    """Learns, and prints a line for each session."""
    import json
    from pathlib import Path

    from gleam_mm import errors, fileio
    from gleam_mm.checkpoint import ADAPTER
    from gleam_mm.config import recipes
    from gleam_mm.engine import launch
    from gleam_mm.engine.classes import fill_classes
    from gleam_mm.incremental import SSIAT
    from gleam_mm.inference.saving import save_classifier

    with errors.setup():
        cfg = recipes.load(args.config, overrides(args))
        told = launch.set_training_dir(cfg, args.work_dir, resume=None)
        fill_classes(cfg)
        learner = SSIAT(cfg, **(cfg.get('incremental') or {}))
    if told:
        print(told, flush=True)
    found = learner.run(_tell)
    last, mean = found[-1], sum(found) / len(found)
    print(f'A_last {last:.2f}\nA_mean {mean:.2f}')
    folder = Path(cfg.work_dir)
    results = dict(accuracies=found, A_last=last, A_mean=mean)
    fileio.write_bytes(folder / 'incremental.json', f'{json.dumps(results, indent=2)}\n'.encode())
    save_classifier(learner.model, folder / ADAPTER, cfg, learner.sessions.names)


def _tell(session: Any, accuracy: float) -> None:
    print(f'session {session.index + 1}: {len(session.seen)} classes, {accuracy:.2f}', flush=True)
