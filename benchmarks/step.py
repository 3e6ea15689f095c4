"""What one training step costs: CPU time and peak memory of several methods, in one run.

Every contender lives in a process of its own, and the processes take turns, a step each, so that a
change in the machine's speed meets all of them alike. Ratios are against the limit: a frozen
backbone with the gradient flowing through all of its activations, which no method that adapts the
first block can beat.

    python benchmarks/step.py                     # ViT-B/16 at 224, batch 4
    python benchmarks/step.py --threads 1         # where other programs use the machine as well
    python benchmarks/step.py --only limit gleam-l lora --rounds 20
"""

import argparse
import logging
import multiprocessing
import platform
import resource
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import torch
from mmengine.logging import MMLogger
from torch import nn

import gleam_mm  # noqa: F401  (registers the methods)
from gleam_mm.layouts import LINEAR_ROLES
from gleam_mm.registry import MODELS

WIDTH, CLASSES = 768, 100


def backbone(image_size: int) -> dict:
    return dict(type='VisionTransformer', arch='b', img_size=image_size, patch_size=16)


def gleam_mm_model(image_size: int, **petl: object) -> nn.Module:
    head = dict(type='LinearClsHead', in_channels=WIDTH, num_classes=CLASSES)
    return MODELS.build(
        dict(type='PETLClassifier', backbone=backbone(image_size), head=head, petl=petl)
    )


def mmpretrain_lora(image_size: int, targets: str) -> nn.Module:
    head = dict(type='LinearClsHead', in_channels=WIDTH, num_classes=CLASSES)
    return MODELS.build(
        dict(
            type='mmpretrain.LoRAModel',
            module=dict(type='ImageClassifier', backbone=backbone(image_size), head=head),
            alpha=8,
            rank=8,
            targets=[dict(type=targets)],
        )
    )


def limit(image_size: int) -> nn.Module:
    model = gleam_mm_model(image_size, type='LinearProbe')
    # A gradient that starts at the patch embedding's bias runs through every block.
    model.backbone.patch_embed.projection.bias.requires_grad_(True)
    return model


CONTENDERS: dict[str, Callable[[int], nn.Module]] = {
    'limit': limit,
    'gleam-l': lambda size: gleam_mm_model(size, type='GLEAM', rank=16),
    'lora-8 (qkv)': lambda size: gleam_mm_model(size, type='LoRA', rank=8),
    'lora-8 (every Linear)': lambda size: gleam_mm_model(
        size, type='LoRA', rank=8, sites=LINEAR_ROLES
    ),
    'mmpretrain LoRAModel-8 (qkv)': lambda size: mmpretrain_lora(size, r'.*qkv'),
    'mmpretrain LoRAModel-8 (every Linear)': lambda size: mmpretrain_lora(
        size, r'.*(qkv|proj|layers\.0\.0|ffn\.layers\.1)'
    ),
    'full tuning': lambda size: gleam_mm_model(size, type='FullTuning'),
}


def work(name: str, args: argparse.Namespace, pipe: Connection) -> None:
    """Trains one contender, a step at each message, and answers with the CPU seconds it took."""
    MMLogger.get_current_instance().setLevel(logging.WARNING)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = CONTENDERS[name](args.image_size).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    images = torch.randn(args.batch_size, 3, args.image_size, args.image_size)
    labels = torch.randint(CLASSES, (args.batch_size,))
    named = model.named_parameters()
    pipe.send(sum(p.numel() for name, p in named if p.requires_grad and 'head.' not in name))
    while pipe.recv() == 'step':
        start = time.process_time()
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()  # here, as MMEngine does
        pipe.send(time.process_time() - start)
    pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--only', nargs='+', choices=CONTENDERS, help='contenders to compare')
    parser.add_argument('--batch-size', type=int, default=4)
    parser.add_argument('--image-size', type=int, default=224)
    parser.add_argument('--rounds', type=int, default=10, help='counted steps of each contender')
    parser.add_argument('--warmup', type=int, default=2, help='steps not counted')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    args = parser.parse_args()

    names = list(dict.fromkeys(['limit', *(args.only or CONTENDERS)]))
    context = multiprocessing.get_context('spawn')
    pipes, processes = {}, []
    for name in names:
        pipes[name], theirs = context.Pipe()
        processes.append(context.Process(target=work, args=(name, args, theirs), daemon=True))
        processes[-1].start()
        theirs.close()
    parameters = {name: pipes[name].recv() for name in names}
    seconds = {name: [] for name in names}
    for turn in range(args.warmup + args.rounds):
        for name in names:
            pipes[name].send('step')
            elapsed = pipes[name].recv()
            if turn >= args.warmup:
                seconds[name].append(elapsed)
    memory = {}
    for name in names:
        pipes[name].send('stop')
        memory[name] = pipes[name].recv()
    for process in processes:
        process.join()

    print(
        f'ViT-B/16 at {args.image_size}, batch {args.batch_size}, {args.threads} threads, '
        f'median of {args.rounds} rounds; torch {torch.__version__}, {platform.machine()}'
    )
    print(f'{"contender":40}{"parameters":>12}{"CPU s":>8}{"ratio":>8}{"peak MB":>9}{"ratio":>8}')
    for name in names:
        ratios = [mine / base for mine, base in zip(seconds[name], seconds['limit'], strict=True)]
        print(
            f'{name:40}{parameters[name]:>12,}{statistics.median(seconds[name]):>8.2f}'
            f'{statistics.median(ratios):>8.2f}{memory[name]:>9.0f}'
            f'{memory[name] / memory["limit"]:>8.2f}'
        )


if __name__ == '__main__':
    main()
