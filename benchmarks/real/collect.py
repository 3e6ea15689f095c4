"""Brings results.csv and studies.json up to date with studies, and makes RESULTS.md of them.

The zoo's metafile, which has the record's means, is written again too.

Each STUDY is what tools/sweep.py made: its name, the path of its SQLite file, or the URL of a
database. A study that is not here keeps its rows; studies may still be running. Without any, the
page alone is made again.

    cd benchmarks/real && PYTHONPATH=$PWD python collect.py real-a real-b
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
    parser.add_argument('studies', nargs='*', metavar='STUDY', help='a sweep of this benchmark')
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

    sys.path.append(str(HERE.parent / 'minivtab'))  # whose record and comparisons are used here

    def main() -> None:
        """Reads the studies, writes the record and the page. Without Optuna, an error says so."""
        with errors.setup():
            import gather
            import results

            from gleam_mm.report import metafiles

            for study, done, planned in gather.collect(arguments.studies, arguments.workers, HERE):
                print(f'{escape.terminal(study)}: {done} of {planned} trainings are complete')
            for path in (results.write(HERE), *metafiles.write()):
                print(f'wrote {path}')

    cli.run(main)
