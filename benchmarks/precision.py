"""Times what a CPU computes in float32 and in bfloat16: PyTorch's products and its attention.

    python benchmarks/precision.py --threads 1

Why a classifier under `--amp` on a CPU attends in float32, and computes nothing in bfloat16 where
the CPU is slow in it, see gleam_mm/models/precision.py. Both types take turns, and the shortest of
the CPU times of several rounds counts.
"""

import argparse

SHAPES = {
    'vit-mini, batch 32': (32, 4, 65, 32),
    'ViT-S/14 at 98, batch 32': (32, 6, 50, 64),
    'ViT-B/16 at 224, batch 8': (8, 12, 197, 64),
    'ViT-B/16 at 384, batch 4': (4, 12, 577, 64),
}
"""Images, heads, tokens and channels a head."""


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--threads', type=int, default=1, help='threads of PyTorch')
    parser.add_argument('--rounds', type=int, default=5, help='rounds, each type once a round')
    return parser.parse_args()


if __name__ == '__main__':
    arguments = parse_args()  # first: importing what follows takes seconds

    import time
    from collections.abc import Callable

    import torch
    from torch import Tensor
    from torch.nn import functional as F

    from gleam_mm.models.precision import MULTIPLIES_BFLOAT16

    Shape = tuple[int, int, int, int]
    Operation = Callable[[], Tensor]

    def attention(shape: Shape, dtype: torch.dtype, training: bool) -> Operation:
        """The fused attention, its operands as they lie in memory behind a fused qkv."""
        batch, heads, tokens, channels = shape
        q, k, v = (
            torch.randn(batch, tokens, heads, channels, dtype=dtype)
            .transpose(1, 2)
            .requires_grad_(training)
            for _ in range(3)
        )
        return lambda: F.scaled_dot_product_attention(q, k, v)

    def linear(shape: Shape, dtype: torch.dtype, training: bool) -> Operation:
        """A frozen Linear of an FFN; the gradient in training is that of its input."""
        batch, heads, tokens, channels = shape
        width = heads * channels
        x = torch.randn(batch, tokens, width, dtype=dtype, requires_grad=training)
        weight = torch.randn(4 * width, width, dtype=dtype)
        return lambda: F.linear(x, weight)

    def seconds(operation: Operation, training: bool) -> float:
        """CPU time of one call, with its gradients in training."""
        start = time.process_time()
        output = operation()
        if training:
            output.backward(torch.ones_like(output))
        return time.process_time() - start

    torch.set_num_threads(arguments.threads)
    print(f'fast products in bfloat16, by PyTorch: {"yes" if MULTIPLIES_BFLOAT16 else "no"}')
    for made in (linear, attention):
        print(f'\n{made.__name__}; ms, float32 / bfloat16 training       evaluation')
        for name, shape in SHAPES.items():
            best: dict[tuple[bool, torch.dtype], float] = {}
            for _ in range(arguments.rounds + 1):
                for training in (True, False):
                    for dtype in (torch.float32, torch.bfloat16):
                        spent = 1000 * seconds(made(shape, dtype, training), training)
                        key = training, dtype
                        best[key] = min(spent, best.get(key, spent))
            cells = [
                f'{best[training, torch.float32]:.1f} / {best[training, torch.bfloat16]:.1f}'
                for training in (True, False)
            ]
            print(f'{name:28}{cells[0]:>18}{cells[1]:>18}')
