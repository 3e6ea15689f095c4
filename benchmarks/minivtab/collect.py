"""Brings the record, benchmarks/minivtab/results.csv and studies.json, up to date with studies.

Each STUDY is what tools/sweep.py made: its name, the path of its SQLite file, or the URL of a
database. By default those of the benchmark that work_dirs/sweeps has. A study that is not here
keeps its rows, so that other machines can add theirs. Studies may still be running.
The zoo's metafile, which has the record's means, is written again; `python
benchmarks/minivtab/page.py` makes RESULTS.md.
"""

import argparse


def parse_args() -> argparse.Namespace:
    """Reads the flags."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('studies', nargs='*', metavar='STUDY', help='default: all that are here')
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

    def main() -> None:
        """Reads the studies and writes the record. Without Optuna, an error says so."""
        with errors.setup():
            import gather
            import records

            from gleam_mm.report import metafiles

            storages = arguments.studies or gather.present()
            collected = gather.collect(storages, arguments.workers, records.FOLDER)
            written = metafiles.write()
        for study, done, planned in collected:
            print(f'{escape.terminal(study)}: {done} of {planned} trainings are complete')
        for path in written:
            print(f'wrote {path}')

    cli.run(main)
