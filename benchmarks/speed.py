"""Makes benchmarks/SPEED.md of what was measured into benchmarks/speed.

python benchmarks/step.py --minutes 60 --threads 1
python benchmarks/arithmetic.py
python benchmarks/launches.py
python benchmarks/mixture.py --threads 1
python benchmarks/scaling.py
python benchmarks/features.py
python benchmarks/speed.py
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import arithmetic
import features
import launches
import mixture
import scaling
import step

from gleam_mm.fileio import write_bytes
from gleam_mm.output import escape, tables

PAGE = Path(__file__).parent / 'SPEED.md'

_HEAD = """# Speed

`python benchmarks/speed.py` writes this page of what is in `benchmarks/speed`; the last table has
the command of each measurement. `make speed` measures what is missing there for ViT-S and Swin-T.
On a CPU there are ratios alone, of CPU time of turns that contenders take one after the other, so
that a change in the machine's speed meets all of them alike; other programs may have run beside it.
Memory is that of tensors, at the peak of a turn, the model and the optimizer's state included.
"""

_STEPS = """## Steps

By the limit of the same library: in training a frozen backbone with the gradient flowing through
all of its activations, at evaluation the backbone alone. Methods that merge cost nothing at
evaluation once they are merged; these are not. Where a step is short, as with narrow tokens, the
calls of GLEAM's many small operations and its thin products weigh most.
"""

_ARITHMETIC = """## Arithmetic

Counted, not timed, by the limit's: multiplications and additions of a training step, and of an
evaluation in which what depends on parameters alone has been computed before. Where narrow products
ran as fast as wide ones, and nothing else took time, the tables above would have these ratios; no
arrangement of a method's operations can have less.
"""

_LAUNCHES = """## Launches

Counted, not timed: the kernels that a training step on a ViT of twelve blocks, such as ViT-B and
ViT-S, launches on a GPU, without the optimizer's, in float32 and under bfloat16 autocast. GLEAM is
without its own kernel here, which takes the place of some forty at each site.
"""

_MIXTURES = """## Mixtures

Forward and backward pass of the mixture of one site at rank 16 with four experts, by the time of
the way that is in use: one convolution with a group for each image or window. All give the same
numbers but for the last, which has one gate for all windows of an image.
"""

_NO_CARD = """### On a card

`python benchmarks/step.py --device cuda` measures ViT-B and Swin-B in float32, bf16 and fp16 with
batches of 32 and 128 there, `--cuda-graph` steps that are replayed, `--channels-last` in that
format, and `--profile` says where the time goes; each adds its tables to this page.
"""

_SCALING = """## Cost against size

Counted, not timed, of one training step of GLEAM: on a ViT-S at 224 along its rank, its experts
and the pixels of an image's side, on a ViT-g/14 along the depth. Memory is what the forward pass
keeps for the backward pass with `recompute=False`; by default most of it is made again.
"""

_FEATURES = """## Cached features

Whole trainings with `default_hooks.device_cache.cache_features=True` and without, in turn;
accuracies on validation, in per cent.
"""


def page(folder: Path) -> str:
    """The page, of what is in the folder."""
    parts = [_HEAD]
    results = step.read(folder / 'step.csv')
    if results:
        parts += [_STEPS, step.markdown(results)]
        parts.append('![Time and memory of a step](speed/step.svg)\n')
    if not any(setting.device == 'cuda' for setting in results):
        parts.append(_NO_CARD)
    if counted := arithmetic.read(folder / 'arithmetic.csv'):
        parts += [_ARITHMETIC, arithmetic.markdown(counted)]
    if launched := launches.read(folder / 'launches.csv'):
        parts += [_LAUNCHES, launches.markdown(launched)]
    if ways := mixture.read(folder / 'mixture.csv'):
        parts += [_MIXTURES, mixture.markdown(ways)]
    if found := scaling.read(folder / 'scaling.csv'):
        parts += [_SCALING, scaling.markdown(found)]
        parts.append('![What GLEAM adds as it grows](speed/scaling.svg)\n')
    if rows := features.read(folder / 'features.csv'):
        parts += [_FEATURES, features.markdown(rows)]
    record = folder / 'machines.json'
    if record.is_file():
        parts.append(_machines(json.loads(record.read_text())))
    return '\n'.join(parts)


def _machines(record: Mapping[str, Mapping[str, str]]) -> str:
    head = ('measured', 'command', 'commit', 'machine', 'threads', 'load', 'versions')
    body = [
        (
            escape.markdown(what),
            escape.markdown_code(told['command']),
            escape.markdown(told['commit']),
            escape.markdown(f'{told["machine"]}, {told["system"]}'),
            told['threads'],
            escape.markdown(told['load']),
            escape.markdown(told['versions']),
        )
        for what, told in record.items()
    ]
    return f'## Machines and commands\n\n{tables.pipes(head, body, left=head)}\n'


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', type=Path, default=step.FOLDER, help='folder of the results')
    args = parser.parse_args(argv)
    write_bytes(PAGE, page(args.out).encode())
    print(f'wrote {PAGE}')


if __name__ == '__main__':
    main()
