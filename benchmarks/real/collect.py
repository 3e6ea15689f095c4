"""Brings results.csv and studies.json up to date with studies, and makes RESULTS.md of them.

The zoo's metafile, which has the record's means, is written again too.

Each STUDY is what tools/sweep.py made: its name, the path of its SQLite file, or the URL of a
database. A study that is not here keeps its rows; studies may still be running. Without any, the
page alone is made again.

    cd benchmarks/real && PYTHONPATH=$PWD python collect.py real-a real-b
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / 'minivtab'))  # whose record and comparisons are used here

import collecting  # noqa: E402

if __name__ == '__main__':
    # First: importing what follows takes seconds.
    arguments = collecting.parse_args(__doc__, '*', 'a sweep of this benchmark')

    from gleam_mm import cli, errors

    def main() -> None:
        """Reads the studies, writes the record and the page. Without Optuna, an error says so."""
        with errors.setup():
            import results

            from gleam_mm.report import metafiles

            collecting.collect(arguments, HERE)
            for path in (results.write(HERE), *metafiles.write()):
                print(f'wrote {path}')

    cli.run(main)
