"""Tells the classes of pictures by an adapter, from its file alone.

PICTURES are files, or folders, whose pictures are found at any depth. Prints a line for each: the
file, and its best classes with their scores. A picture that cannot be read costs a line on the
standard error; then the tool exits with 1.
"""

import argparse
from pathlib import Path

from gleam_mm_cli.flags import Parser


def parse_args() -> argparse.Namespace:
    """Reads the flags."""
    parser = Parser(description=__doc__)
    parser.add_argument('adapter', help='an adapter.safetensors')
    parser.add_argument('pictures', nargs='+', metavar='PICTURE', help='a picture, or a folder')
    parser.add_argument('--top-k', type=int, default=1, help='how many classes; default: 1')
    parser.add_argument('--out', type=Path, help='also write a .csv or .json file')
    parser.add_argument(
        '--weights',
        help='the weights of the backbone; default: GLEAM_WEIGHTS, then where the adapter says',
    )
    parser.add_argument('--config', help='the config of the training, for what the adapter lacks')
    parser.add_argument('--device', help='default: a GPU if there is one')
    args = parser.parse_args()
    if args.top_k < 1:
        parser.error(f'--top-k {args.top_k}: give a number of at least 1')
    if args.out is not None and args.out.suffix not in ('.csv', '.json'):
        parser.error(f'--out {args.out}: predictions go to a .csv or .json file')
    return args


def main(args: argparse.Namespace) -> int:
    """Predicts, and prints."""
    import sys

    import gleam_mm
    from gleam_mm import errors
    from gleam_mm.datasets import UnreadableImageError
    from gleam_mm.inference import results
    from gleam_mm.output import escape

    with errors.setup():
        predictor = gleam_mm.Predictor(args.adapter, args.weights, args.device, args.config)
        files = results.files_of(args.pictures)
    told, unread = {}, 0
    for file, outcome in zip(files, predictor.each(files, args.top_k), strict=True):
        if isinstance(outcome, UnreadableImageError):
            unread += 1
            print(escape.terminal(outcome), file=sys.stderr)
            continue
        told[file] = outcome
        print(escape.terminal(results.line(file, outcome)))
    if args.out is not None:
        with errors.setup():
            results.write(args.out, told)
    return int(unread > 0)
