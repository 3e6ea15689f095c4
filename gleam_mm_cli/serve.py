"""Serves a bank of adapters over HTTP.

BANK is a YAML file that names the backbone and the adapters (docs/bank.md). Tasks are added and
removed while the server runs by whoever has the token, which comes from the environment variable
GLEAM_TOKEN; without one nobody can.
"""

import argparse

from gleam_mm_cli.flags import Parser


def parse_args() -> argparse.Namespace:
    """Reads the flags."""
    parser = Parser(description=__doc__)
    parser.add_argument('bank', help='a YAML file')
    parser.add_argument('--host', help='the address to listen at; default: that of the file')
    parser.add_argument('--port', type=int, help='the port; default: that of the file')
    parser.add_argument('--device', help='default: that of the file, or a GPU if there is one')
    parser.add_argument('--weights', help='the weights of the backbone; default: as in the file')
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    """Serves until it is told to end. FastAPI is imported here: its absence is told in a line."""
    from gleam_mm import errors

    with errors.setup():
        from gleam_mm.serve import server, settings

        told = settings.read(args.bank).with_flags(
            host=args.host, port=args.port, device=args.device, weights=args.weights
        )
        app = server.build(told)
    server.run(app, told)
