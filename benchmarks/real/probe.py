"""Chooses how many of the ViT's blocks the benchmark uses, once, before any method is compared.

For each task and depth: ridge regression in closed form on the frozen, standardised class token of
train800, its penalty the best of 0.1, 1, 10, 100 and 1000 on val200. The depth with the higher mean
over the tasks is the one in configs/_base_/backbones/real-vit.py. The test split stays closed.

    python benchmarks/real/prepare.py FOLDER --depth 10
    python benchmarks/real/prepare.py FOLDER --depth 12
    python benchmarks/real/probe.py
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEPTHS = (10, 12)
TABLE = 'probe.csv'


def parse_args() -> argparse.Namespace:
    """Reads the flags: there are none but --help."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    return parser.parse_args()


if __name__ == '__main__':
    parse_args()  # first: importing what follows takes seconds

    sys.path.append(str(HERE.parent))  # whose probe is used here
    import ridge

    from gleam_mm import cli, errors
    from gleam_mm.config import recipes
    from gleam_mm.fileio import write_bytes
    from gleam_mm.sweep import protocol

    def accuracies(task: str, depth: int) -> list[float]:
        """Accuracy on val200 in %, for each penalty."""
        options = {
            'model.backbone.depth': depth,
            'model.backbone.init_cfg.checkpoint': f'checkpoints/real-vit-{depth}.safetensors',
            'train_dataloader.dataset.split': 'train800',
        }
        cfg = recipes.load(f'real-vit_linear_real-{task}', options)
        with protocol.only('train800', 'val200'):
            return [accuracy for (accuracy,) in ridge.probe(cfg, 'val')]

    def table(rows: Sequence[Sequence[object]]) -> bytes:
        """Rows as CSV."""
        return '\n'.join(','.join(map(str, row)) for row in [*rows, ()]).encode()

    def main() -> None:
        """Probes every task at every depth, and writes the table."""
        os.chdir(HERE)
        with errors.setup():
            names = [name for name in recipes.families()['datasets'] if name.startswith('real-')]
            rows: list[tuple] = [('task', 'depth', 'penalty', 'accuracy')]
            means = {}
            for depth in DEPTHS:
                best = []
                for name in names:
                    task = name.removeprefix('real-')
                    measured = accuracies(task, depth)
                    rows += [
                        (task, depth, penalty, f'{accuracy:.1f}')
                        for penalty, accuracy in zip(ridge.PENALTIES, measured, strict=True)
                    ]
                    best.append(max(measured))
                    print(f'{depth} blocks, {task}: {best[-1]:.1f}', flush=True)
                means[depth] = sum(best) / len(best)
            write_bytes(HERE / TABLE, table(rows))
            for depth, mean in means.items():
                print(f'{depth} blocks: {mean:.1f} on average')

    cli.run(main)
