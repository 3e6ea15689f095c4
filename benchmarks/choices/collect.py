"""Brings results.csv and studies.json up to date with the sweeps by which presets were chosen.

Each STUDY is what tools/sweep.py made: its name, the path of its SQLite file, or the URL of a
database. A study that is not here keeps its rows. A sweep of the real backbone is collected where
it was run, in benchmarks/real.

    python benchmarks/choices/collect.py gleam-parts gleam-rates
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / 'minivtab'))  # whose record is used here

import collecting  # noqa: E402

if __name__ == '__main__':
    arguments = collecting.parse_args(__doc__, '+', 'a sweep')  # what follows takes seconds

    from gleam_mm import cli, errors

    def main() -> None:
        """Reads the studies and writes the record. Without Optuna, an error says so."""
        with errors.setup():
            collecting.collect(arguments, HERE)

    cli.run(main)
