"""Makes CLAIMS.md, what the two benchmarks here say of the paper's claims, and README's figure.

It reads their records alone, minivtab/results.csv and real/results.csv, which their own collect.py
bring up to date.

    python benchmarks/collect_claims.py
"""

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def parse_args() -> argparse.Namespace:
    """Reads the flags: there are none but --help."""
    return argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()


if __name__ == '__main__':
    parse_args()  # first: importing what follows takes seconds

    from gleam_mm import cli, errors

    sys.path += [str(HERE / 'minivtab'), str(HERE / 'real')]  # whose comparisons are used here

    def main() -> None:
        """Writes the page and the figure. Without SciPy, an error says so."""
        with errors.setup():
            import summary

            written = summary.write()
        for path in written:
            print(f'wrote {path}')

    cli.run(main)
