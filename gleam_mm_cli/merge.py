"""Folds a trained method into its backbone: an ordinary checkpoint that needs no GLEAM-MM.

Writes OUT, which MMPretrain loads (timm as well, where the backbone is timm's), and the config of
the merged model beside it. A method whose updates no weight can express (GLEAM's mixture of
experts, prompts, adapters with an activation) is refused.
"""

import argparse

from gleam_mm_cli.flags import Parser


def parse_args() -> argparse.Namespace:
    """Reads the flags."""
    parser = Parser(description=__doc__)
    parser.add_argument('config', help='the config or recipe that the checkpoint was trained with')
    parser.add_argument('checkpoint', help='an adapter.safetensors, or a .pth checkpoint')
    parser.add_argument('out', help='the .pth file to write; the config goes beside it')
    parser.add_cfg_options('model.petl.rank=8')
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    """Merges, and tells where the files are."""
    from gleam_mm import errors
    from gleam_mm.config import recipes
    from gleam_mm.models import merge

    with errors.setup():
        cfg = recipes.load(args.config, args.cfg_options)
        checkpoint, config = merge.merge_checkpoint(cfg, args.checkpoint, args.out)
    print(f'{checkpoint} and {config}: the merged model, for MMPretrain alone')
