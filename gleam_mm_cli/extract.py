"""Makes a LoRA adapter of a fully tuned checkpoint.

FULL is a checkpoint of MMPretrain, of timm, or of `full` here; BASE a config or recipe whose
backbone has the weights that the tuning began with. Biases, norms and the head are kept as they
are. Prints the energy kept of each Linear's update, and what else was changed and is lost; with
--val, the accuracy of both on the validation split of BASE.
"""

import argparse

from gleam_mm_cli.flags import Parser


def parse_args() -> argparse.Namespace:
    """Reads the flags."""
    parser = Parser(description=__doc__)
    parser.add_argument('full', help='the fully tuned checkpoint')
    parser.add_argument('base', help='a config or recipe with the pretrained backbone')
    parser.add_argument('out', help='the .safetensors file to write')
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument('--rank', type=int, help='the rank of all updates')
    size.add_argument(
        '--energy', type=float, help='or the share that each has to keep, such as 0.9'
    )
    parser.add_argument('--val', action='store_true', help='measure before and after')
    parser.add_cfg_options('val_dataloader.batch_size=16')
    args = parser.parse_args()
    if not args.out.endswith('.safetensors'):
        parser.error(f'{args.out}: an adapter is a .safetensors file')
    return args


def main(args: argparse.Namespace) -> None:
    """Extracts, measures, and prints tables."""
    from pathlib import Path
    from tempfile import TemporaryDirectory

    import torch

    from gleam_mm import errors
    from gleam_mm.combine import extract
    from gleam_mm.config import recipes
    from gleam_mm.engine.validate import cells, validate_each
    from gleam_mm.output import tables

    with errors.setup():
        cfg = recipes.load(args.base, args.cfg_options)
        made = extract.extract(args.full, cfg, args.out, args.rank, args.energy)
    rows = [[name, f'{energy:.4f}'] for name, energy in made.energies.items()]
    print(tables.text([f'rank {made.rank}', 'energy kept'], rows, left=[f'rank {made.rank}']))
    if made.lost:
        rows = [[name, f'{change:.4f}'] for name, change in made.lost.items()]
        print('\n' + tables.text(['lost', 'relative change'], rows, left=['lost']))
    if not args.val:
        return
    with TemporaryDirectory() as folder:
        file = Path(folder) / 'full.pth'
        with errors.setup():
            torch.save(dict(state_dict=extract.full_model(cfg, args.full).state_dict()), file)
        measured = validate_each(cfg, [file, args.out])
    rows = [
        [name, *cells(metrics)]
        for name, metrics in zip((args.full, args.out), measured, strict=True)
    ]
    print('\n' + tables.text(['file', *measured[0]], rows, left=['file']))
