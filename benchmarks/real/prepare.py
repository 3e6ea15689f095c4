"""Prepares the weights and the photographs of this benchmark, from a folder that has them.

FOLDER has `vit_small_patch14_dinov2.fp16.safetensors`, DINOv2's ViT-S/14 with timm's key names, and
`<task>.tar` for the photographs, each a folder in VTAB-1K's layout. Written here: `checkpoints/`
and `data/`, which git ignores. What is there already is kept.

    python benchmarks/real/prepare.py FOLDER
    python benchmarks/real/prepare.py FOLDER --depth 12   # a further one, for the probe
"""

import argparse
import tarfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
WEIGHTS = 'vit_small_patch14_dinov2.fp16.safetensors'
PATCH = 14


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('folder', type=Path, metavar='FOLDER', help='has the weights and the tars')
    parser.add_argument(
        '--depth', type=int, help="blocks to keep; by default as many as the benchmark's backbone"
    )
    return parser.parse_args()


if __name__ == '__main__':
    arguments = parse_args()  # first: importing what follows takes seconds

    from gleam_mm import cli, errors  # patches what timm imports

    # isort: split
    from mmengine.config import Config
    from safetensors.torch import save
    from timm.layers import resample_abs_pos_embed

    from gleam_mm.checkpoint import read_state_dict
    from gleam_mm.fileio import write_bytes

    def cut(source: Path, depth: int, img_size: int) -> bytes:
        """The first blocks of the ViT, its position embeddings resampled for smaller images."""
        tensors = {}
        for key, value in read_state_dict(source).items():
            if key == 'pos_embed':
                grid = [img_size // PATCH] * 2
                value = resample_abs_pos_embed(value.float(), grid).to(value.dtype)
            part = key.split('.')
            if part[0] != 'blocks' or int(part[1]) < depth:
                tensors[f'timm_model.{key}'] = value.contiguous()
        return save(tensors)

    def unpack(archive: Path, folder: Path) -> None:
        """Unpacks a task beside its place, then moves it there."""
        partial = folder.with_name(f'.{folder.name}')
        with tarfile.open(archive) as tar:
            tar.extractall(partial, filter='data')
        (partial / folder.name).replace(folder)
        partial.rmdir()

    def main() -> None:
        """Writes what is missing."""
        with errors.setup():
            source = arguments.folder / WEIGHTS
            if not source.is_file():
                raise errors.UserError(f'{source} does not exist: FOLDER has no such weights')
            backbone = Config.fromfile(HERE / 'configs/_base_/backbones/real-vit.py').model.backbone
            depth = arguments.depth or backbone.depth
            target = HERE / 'checkpoints' / f'real-vit-{depth}.safetensors'
            if not target.exists():
                write_bytes(target, cut(source, depth, backbone.img_size))
            print(target)
            for archive in sorted(arguments.folder.glob('*.tar')):
                folder = HERE / 'data' / archive.stem
                if not folder.exists():
                    folder.parent.mkdir(exist_ok=True)
                    unpack(archive, folder)
                print(folder)

    cli.run(main)
