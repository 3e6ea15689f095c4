"""What the collect.py of every benchmark of sweeps does: its flags, and what it tells."""

import argparse
from pathlib import Path


def parse_args(doc: str, nargs: str, studies: str) -> argparse.Namespace:
    """Reads the command line.

    Args:
        doc: What the script does.
        nargs: How many studies it takes, as :mod:`argparse` writes it.
        studies: What they are.
    """
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('studies', nargs=nargs, metavar='STUDY', help=studies)
    parser.add_argument(
        '--workers',
        type=int,
        default=2,
        metavar='N',
        help="the sweeps' --workers, which tells the threads of each; default: %(default)s",
    )
    return parser.parse_args()


def collect(arguments: argparse.Namespace, folder: Path) -> None:
    """Brings the record in a folder up to date, and tells how far each study is.

    Raises:
        UserError: A study cannot be read, or is another run than the one that is recorded.
    """
    import gather  # takes seconds

    from gleam_mm.output import escape

    for study, done, planned in gather.collect(arguments.studies, arguments.workers, folder):
        print(f'{escape.terminal(study)}: {done} of {planned} trainings are complete')
