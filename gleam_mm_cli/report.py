"""Makes tables and figures of studies: Markdown, CSV, LaTeX and one HTML page that stands alone.

STUDY is what tools/sweep.py made: its name, the path of its SQLite file, or the URL of a database.
Only final trainings count: they were tested once, at the last epoch. Several studies make one
report: other backbones, other shots, or the rows of an ablation. `report.py --metafiles` writes
what zoo/ of a checkout says of its adapters, and of what benchmarks have recorded.
"""

import argparse

from gleam_mm_cli.flags import Parser


def parse_args() -> argparse.Namespace:
    """Reads the flags."""
    parser = Parser(description=__doc__)
    parser.add_argument(
        'studies',
        nargs='*',
        metavar='STUDY',
        help='the name of a sweep, the path of an SQLite file, or the URL of a database',
    )
    parser.add_argument(
        '--study',
        '--name',
        action='append',
        metavar='NAME',
        help='a study in a storage that holds several; may be given more than once',
    )
    parser.add_argument(
        '--out', metavar='FOLDER', help="where to write; default: 'report' beside an SQLite file"
    )
    parser.add_argument(
        '--metafiles',
        action='store_true',
        help="write the zoo's index and metafile of its adapters and the benchmarks' records",
    )
    args = parser.parse_args()
    if args.metafiles == bool(args.studies) or (args.metafiles and (args.study or args.out)):
        parser.error('give one STUDY or more, or else --metafiles alone')
    return args


def main(args: argparse.Namespace) -> None:
    """Reads the studies and writes the report."""
    from gleam_mm import errors, report
    from gleam_mm.output.tables import markdown
    from gleam_mm.report import metafiles

    with errors.setup():
        if args.metafiles:
            for path in metafiles.write():
                print(f'wrote {path}')
            return
        made, paths = report.make(args.studies, args.study, args.out)
    for table in made.tables:
        print(markdown(table))
    for path in paths:
        print(f'wrote {path}')
