"""Brings results.csv and studies.json up to date with the sweeps by which presets were chosen.

Each STUDY is what tools/sweep.py made: its name, the path of its SQLite file, or the URL of a
database. A study that is not here keeps its rows. A sweep of the real backbone is collected where
it was run, in benchmarks/real.

    python benchmarks/choices/collect.py gleam-parts gleam-rates
"""

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('studies', nargs='+', metavar='STUDY', help='a sweep')
    parser.add_argument(
        '--workers',
        type=int,
        default=2,
        metavar='N',
        help="the sweeps' --workers, which tells the threads of each; default: %(default)s",
    )
    return parser.parse_args()


if __name__ == '__main__':
    arguments = parse_args()  # first: importing what follows takes seconds

    from gleam_mm import cli, errors
    from gleam_mm.output import escape

    sys.path.append(str(HERE.parent / 'minivtab'))  # whose record is used here

    def main() -> None:
        """Reads the studies and writes the record. Without Optuna, an error says so."""
        with errors.setup():
            import gather

            for study, done, planned in gather.collect(arguments.studies, arguments.workers, HERE):
                print(f'{escape.terminal(study)}: {done} of {planned} trainings are complete')

    cli.run(main)
