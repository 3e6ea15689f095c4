"""What mixing tasks costs: one task against 19 and 256 in batches of one bank, in one run.

Every pass classifies the same pictures; contenders take turns, so that a change in the machine's
speed meets all of them alike. Ratios are throughputs against the same bank's with one task, medians
over rounds. HF PEFT's mixed batches (`adapter_names=`) stand beside LoRA, against PEFT with one
adapter.

    python benchmarks/bank.py                              # ViT-B/16 at 224, batches of 32
    python benchmarks/bank.py --only lora --rounds 5 --threads 1
"""

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from gleam_mm.bank import AdapterBank
from gleam_mm.bank.bank import BATCH
from gleam_mm.checkpoint import FINGERPRINT, save_adapter
from gleam_mm.config import recipes
from gleam_mm.models import PETLClassifier
from gleam_mm.registry import MODELS, own_scope

METHODS = ('gleam-t', 'gleam-l', 'lora', 'ssf', 'bitfit')
CLASSES = 100


def backbone(image_size: int) -> dict:
    return dict(type='VisionTransformer', arch='b', img_size=image_size, patch_size=16)


def adapter(method: str, image_size: int, folder: Path) -> Path:
    """The file of a random adapter on the random backbone that every bank draws."""
    with own_scope():
        model = PETLClassifier(
            backbone(image_size),
            recipes.method_preset(method),
            head=dict(type='LinearClsHead', in_channels=768, num_classes=CLASSES),
            data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3, to_rgb=False),
            allow_random_backbone=True,
            probe=False,
        )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.01 * torch.randn_like(parameter))
    resize = dict(type='Resize', scale=[image_size] * 2, backend='pillow')
    metadata = {
        **model.description,
        'backbone_fingerprint': model.backbone_fingerprint(),
        'pipeline': [resize, dict(type='PackInputs')],
    }
    tensors = {key: value for key, value in model.state_dict().items() if key != FINGERPRINT}
    save_adapter(folder / f'{method}.safetensors', tensors, metadata)
    return folder / f'{method}.safetensors'


def passes_of_bank(
    method: str, args: argparse.Namespace, folder: Path
) -> dict[str, Callable[[], object]]:
    """A pass over one task, and over each number of tasks; prints what the bank holds."""
    path = adapter(method, args.image_size, folder)
    bank = AdapterBank(device=args.device)
    bank.add('0', path)
    start = time.perf_counter()
    for number in range(1, max(args.tasks)):
        bank.add(str(number), path)  # each has numbers of its own in memory
    adding = (time.perf_counter() - start) / (max(args.tasks) - 1)
    start = time.perf_counter()
    for number in range(1000):
        bank.active(str(number % max(args.tasks)))
    switching = (time.perf_counter() - start) / 1000
    memory, size = bank.memory, bank.describe('0')['adapter_bytes']
    print(
        f'{method}: backbone {memory.backbone / 1e6:.1f} MB, {memory.tasks} adapters '
        f'{memory.adapters / 1e6:.1f} MB, heads {memory.heads / 1e6:.1f} MB; 1,000 adapters '
        f'{size / 1e3:.1f} MB; {1e3 * adding:.1f} ms to add one, {1e3 * switching:.4f} ms to switch'
    )
    generator = np.random.default_rng(0)
    shape = (args.batch_size, args.image_size, args.image_size, 3)
    pictures = generator.integers(0, 256, shape, dtype=np.uint8)

    def pass_over(tasks: int) -> Callable[[], object]:
        order = generator.permutation(max(tasks, args.batch_size))[: args.batch_size] % tasks
        prepared = [
            bank.prepare(picture, str(task)) for picture, task in zip(pictures, order, strict=True)
        ]
        return lambda: bank.scores(prepared)

    return {f'{method}, {number} tasks': pass_over(number) for number in args.tasks}


def passes_of_peft(args: argparse.Namespace) -> dict[str, Callable[[], object]]:
    """The same of HF PEFT, LoRA-8 on qkv; without a head."""
    from peft import LoraConfig, get_peft_model  # after gleam_mm, which mends what it imports

    with own_scope():
        model = MODELS.build(backbone(args.image_size))
    config = LoraConfig(r=8, lora_alpha=8, target_modules=['qkv'], init_lora_weights=False)
    model = get_peft_model(model, config, adapter_name='0')
    for number in range(1, max(args.tasks)):
        model.add_adapter(str(number), config)
    model.to(args.device)
    model.eval()
    images = torch.randn(args.batch_size, 3, args.image_size, args.image_size, device=args.device)
    generator = np.random.default_rng(0)

    def pass_over(tasks: int) -> Callable[[], object]:
        if tasks == 1:
            return lambda: model(images)[-1].cpu()
        order = generator.permutation(max(tasks, args.batch_size))[: args.batch_size] % tasks
        names = [str(number) for number in order]
        return lambda: model(images, adapter_names=names)[-1].cpu()

    return {f'HF PEFT LoRA, {number} tasks': pass_over(number) for number in args.tasks}


@torch.no_grad()
def compare(passes: dict[str, Callable[[], object]], args: argparse.Namespace) -> None:
    """Runs all passes in turns, and prints their throughput."""
    clock = time.process_time if args.device == 'cpu' else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    order = list(passes)
    for turn in range(args.warmup + args.rounds):
        order.append(order.pop(0))  # so that nobody is always behind the same
        for name in order:
            start = clock()
            passes[name]()
            if turn >= args.warmup:
                seconds[name].append(clock() - start)
    alone = seconds[next(iter(passes))]
    for name, took in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(alone, took, strict=True))
        rate = args.batch_size / statistics.median(took)
        print(f'  {name:30}{rate:10.2f} images/s{ratio:8.3f}', flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    contenders = (*METHODS, 'peft')
    parser.add_argument('--only', nargs='+', choices=contenders, default=contenders)
    parser.add_argument('--tasks', nargs='+', type=int, default=[1, 19, 256], help='how many')
    parser.add_argument('--batch-size', type=int, default=32)
    parser.add_argument('--image-size', type=int, default=224)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--warmup', type=int, default=1, help='rounds not counted')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    args = parser.parse_args()
    if args.batch_size > BATCH:
        parser.error(f'--batch-size {args.batch_size}: a bank computes {BATCH} images at once')
    if args.warmup < 1 or args.rounds < 1:
        parser.error('--warmup and --rounds: at least 1; a first pass pays for all behind it')
    if max(args.tasks) < 2:
        parser.error('--tasks: name a number above 1, to compare with one task')
    torch.set_num_threads(args.threads)
    print(
        f'ViT-B/16 at {args.image_size}, batches of {args.batch_size}, {args.device}, '
        f'{args.threads} threads, median of {args.rounds} rounds; torch {torch.__version__}, '
        f'{platform.machine()}'
    )
    with tempfile.TemporaryDirectory() as folder:
        for name in args.only:
            if name == 'peft':
                compare(passes_of_peft(args), args)
            else:
                compare(passes_of_bank(name, args, Path(folder)), args)


if __name__ == '__main__':
    main()
