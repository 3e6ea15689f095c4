"""Damages files of weights, and counts how many of the damages are noticed.

    python tests/campaign/flips.py --flips 200 --seed 0

Single bits are turned at random places of an adapter file and of a checkpoint as a training leaves
them, and of the same with matrices of few bits; ends are cut off, halves are zeroed, and blocks are
swapped. A damage passes if reading the file tells it in one line that names the file; or if what is
read is what was written, for some bits of a file mean nothing, such as the time in a zip archive.
Prints what was tried and what passed, by kind, and exits with 1 if anything has failed.
"""

import argparse
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / 'engine')]

import gleam_mm  # noqa: E402, F401

# isort: split

import torch  # noqa: E402
from conftest import make_classifier as fixture  # noqa: E402
from mmengine.logging import HistoryBuffer  # noqa: E402
from mmengine.registry import DefaultScope  # noqa: E402
from runs import assert_same, build  # noqa: E402
from tally import Tally  # noqa: E402

from gleam_mm.checkpoint import CheckpointError, load_from_local, read_adapter  # noqa: E402
from gleam_mm.checkpoint.verify import verify  # noqa: E402

METHODS = {'adapter': {}, 'adapter of few bits': dict(petl='LoRA', rank=4, bits=1)}


def files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Trains, and gives the files that are damaged."""
    make_classifier = fixture.__wrapped__()
    for kind, options in METHODS.items():
        work_dir = folder / kind
        model = make_classifier(**{'num_classes': 2, **options})
        build(model, work_dir, script=(1.0,), train_cfg=dict(by_epoch=True, max_epochs=1)).train()
        yield kind, work_dir / 'adapter.safetensors'
        if not options:
            yield 'checkpoint', work_dir / 'epoch_1.pth'


def damages(data: bytes, flips: int, generator: random.Random) -> Iterator[tuple[str, bytes]]:
    """What becomes of a file, with the name of the damage."""
    for _ in range(flips):
        bit = generator.randrange(8 * len(data))
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        yield f'bit {bit}', bytes(changed)
    for _ in range(flips // 10):
        size = generator.randrange(len(data))
        yield f'cut at {size}', data[:size]
        yield f'zeros from {size}', data[:size] + bytes(len(data) - size)
        block = generator.randint(1, len(data) // 8)
        first, second = sorted(generator.sample(range(len(data) - 2 * block), 2))
        second += block
        swapped = (
            *(data[:first], data[second : second + block], data[first + block : second]),
            *(data[first : first + block], data[second + block :]),
        )
        yield f'{block} bytes at {first} and {second} swapped', b''.join(swapped)


def fault(path: Path, read: Callable[[], object], content: object) -> str | None:
    """What is wrong with how a damage is taken, or None."""
    try:
        found = read()
    except CheckpointError as error:
        told = str(error)
        clear = str(path) in told and '\n' not in told
        return None if clear else f'not one line that names the file: {told}'
    try:
        assert_same(found, content)
    except Exception as error:
        return f'not noticed: {error}'
    return None


def main() -> None:
    """Runs the campaign."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--flips', type=int, default=200, help='how many bits of each file')
    parser.add_argument('--seed', type=int, default=0, help='decides which')
    args = parser.parse_args()
    generator, tally = random.Random(args.seed), Tally()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for kind, path in files(Path(folder)):

            def read(path: Path = path) -> object:
                verify(path)  # as tools/verify.py does
                adapter = path.suffix == '.safetensors'
                return plain(list(read_adapter(path)) if adapter else load_from_local(str(path)))

            data, content = path.read_bytes(), read()
            for name, changed in damages(data, args.flips, generator):
                path.write_bytes(changed)
                what = 'bits' if name.startswith('bit') else 'cuts, zeros and swaps'
                same = changed == data
                tally.add(f'{kind}: {what}', name, None if same else fault(path, read, content))
    tally.finish()


def plain(content: object) -> object:
    """A checkpoint's content, of which curves are compared by their numbers."""
    if isinstance(content, dict):
        return {key: plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [plain(value) for value in content]
    if isinstance(content, HistoryBuffer):
        return [numbers.tolist() for numbers in content.data]
    return content


if __name__ == '__main__':
    with DefaultScope.overwrite_default_scope('gleam_mm'):
        main()
