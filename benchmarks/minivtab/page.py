"""Makes RESULTS.md, its figures and TUNED.md beside it of results.csv and studies.json alone.

`python benchmarks/minivtab/collect.py` brings these up to date. Where homogeneity.json lies beside
them (what `tools/analyze.py homogeneity` writes), RESULTS.md has a section on it.
"""

import argparse


def parse_args() -> argparse.Namespace:
    """Reads the flags: there are none but --help."""
    return argparse.ArgumentParser(description=__doc__).parse_args()


if __name__ == '__main__':
    parse_args()  # first: importing what follows takes seconds

    from gleam_mm import cli, errors

    def main() -> None:
        """Writes the pages."""
        with errors.setup():
            import records
            import tuned
            import writeup

            written = [*writeup.write(records.FOLDER), tuned.write(records.FOLDER)]
        for path in written:
            print(f'wrote {path}')

    cli.run(main)
