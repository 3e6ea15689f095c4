"""Tells how hard MiniVTAB's tasks are for a linear probe of the two backbones that ship: probe.csv.

For each task and backbone: ridge regression in closed form on the frozen, standardised features of
train800, its penalty the best of 0.1, 1, 10, 100 and 1000 on val200, and what that one has on test.

    python benchmarks/minivtab/probe.py
"""

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
BACKBONES = ('vit-mini', 'swin-mini')
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
    from gleam_mm.minivtab import MINI_TASKS

    def probe(backbone: str, task: str) -> tuple[float, float, float]:
        """The penalty that val200 chooses, and its accuracy there and on test in %."""
        found = ridge.probe(recipes.load(f'{backbone}_linear_mini-{task}'), 'val', 'test')
        best = max(range(len(found)), key=lambda index: found[index][0])
        return ridge.PENALTIES[best], *found[best]

    def main() -> None:
        """Probes every task with both backbones, and writes the table."""
        lines = ['task,backbone,penalty,val200,test']
        with errors.setup():
            for backbone in BACKBONES:
                for task in MINI_TASKS:
                    penalty, val, test = probe(backbone, task)
                    lines.append(f'{task},{backbone},{penalty:g},{val:.1f},{test:.1f}')
                    print(lines[-1], flush=True)
            write_bytes(HERE / TABLE, ('\n'.join(lines) + '\n').encode())

    cli.run(main)
