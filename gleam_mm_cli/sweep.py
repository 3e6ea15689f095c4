"""Trains methods x datasets x a grid x seeds by the protocol of VTAB-1K, on many workers.

Options are chosen on the validation split; the best ones are trained with each seed and tested
once. `run` begins a sweep or joins it; the same command on more machines, with the URL of a
database that all of them reach, adds workers.
"""

import argparse
from pathlib import Path

from gleam_mm_cli.flags import KeyValues, Parser


def parse_args() -> argparse.Namespace:
    """Reads the command and its flags."""
    parser = Parser(description=__doc__)
    commands = parser.add_subparsers(dest='command', required=True)

    run = commands.add_parser('run', help='begin a sweep, or join one with the same settings')
    run.add_argument('file', nargs='?', help='a file of settings, see configs/sweeps; flags win')
    run.add_argument('--name', help='name of the study; default: <backbone>_<datasets>')
    run.add_argument('--backbone', help='such as vit-b')
    run.add_argument('--methods', help='such as gleam-l,lora or gleam-*')
    run.add_argument('--datasets', help='such as vtab, vtab-natural, fgvc, vtab-cifar,vtab-dtd')
    run.add_argument('--seeds', help='how many, or which: 3 is 0,1,2; default: 1')
    run.add_argument(
        '--grid',
        nargs='+',
        action=KeyValues,
        metavar='NAME=V,V',
        help='values to choose from: alpha=0.1,1 top_k=1,2 sites=[[qkv],[qkv,fc1]]',
    )
    run.add_cfg_options(
        'train_cfg.max_epochs=50, of all trainings, beside those of the file',
        '--options',
        dest='options',
        default=None,
    )
    run.add_argument(
        '--storage',
        help='an SQLite file, or the URL of a database that several machines reach; default: '
        'work_dirs/sweeps/<name>/study.db',
    )
    run.add_argument(
        '--heartbeat',
        type=int,
        metavar='SECONDS',
        help='signs of life of workers; a worker that misses three is dead; default: 20',
    )

    resume = commands.add_parser('resume', help='go on with a sweep, with the settings it has')
    resume.add_argument('--retry-failed', action='store_true', help='run what has failed again')
    status = commands.add_parser('status', help='tell how far a sweep is, and what is best so far')
    estimate = commands.add_parser(
        'estimate', help='tell how long a sweep, or what is left of one, will take on this machine'
    )
    estimate.add_argument(
        'sweep',
        metavar='FILE_OR_STUDY',
        help='a file of settings, as for run, or a study, as for status',
    )
    estimate.add_argument('--name', help='name of the study, if the database holds several')
    export = commands.add_parser('export', help='write the tuned values as config files')
    for command in (resume, status, export):
        command.add_argument(
            'study', help='its name in work_dirs/sweeps, an SQLite file, or the URL of a database'
        )
        command.add_argument('--name', help='name of the study, if the database holds several')
    export.add_argument('folder', type=Path, metavar='OUT_DIR', help='where to write the configs')
    for command in (run, resume, estimate):
        command.add_argument('--workers', type=int, help='processes; default: 1, or one a GPU')
    for command in (run, resume):
        command.add_argument('--gpus', help='GPUs that the workers share: 0,1')
        command.add_argument('--work-dir', type=Path, help='default: work_dirs/sweeps/<name>')
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    """Runs the command. Optuna is imported here, so that its absence is told in one line."""
    from gleam_mm import errors

    with errors.setup():
        from gleam_mm.report.live import LivePage
        from gleam_mm.sweep import commands
    if args.command in commands.WORKING:
        commands.WORKING[args.command](args, LivePage)
    else:
        commands.COMMANDS[args.command](args)
