"""Brings the record, benchmarks/minivtab/results.csv and studies.json, up to date with studies.

Each STUDY is what tools/sweep.py made: its name, the path of its SQLite file, or the URL of a
database. By default those of the benchmark that work_dirs/sweeps has. A study that is not here
keeps its rows, so that other machines can add theirs. Studies may still be running.
The zoo's metafile, which has the record's means, is written again; `python
benchmarks/minivtab/page.py` makes RESULTS.md.
"""

import collecting

if __name__ == '__main__':
    arguments = collecting.parse_args(__doc__, '*', 'default: all that are here')  # first, quickly

    from gleam_mm import cli, errors

    def main() -> None:
        """Reads the studies and writes the record. Without Optuna, an error says so."""
        with errors.setup():
            import gather
            import records

            from gleam_mm.report import metafiles

            arguments.studies = arguments.studies or gather.present()
            collecting.collect(arguments, records.FOLDER)
            for path in metafiles.write():
                print(f'wrote {path}')

    cli.run(main)
