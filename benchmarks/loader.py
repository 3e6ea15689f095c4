"""How much the image cache saves, and how long verify takes for the longest list of VTAB-1K.

    python benchmarks/loader.py                  # 1,000 JPEG files of 224 x 224, 2 workers
    python benchmarks/loader.py --only cache --size 500 --workers 2 --epochs 5
    python benchmarks/loader.py --only verify

The loader is that of training: the pipeline of configs/_base_/datasets/_vtab.py, batches of 32,
persistent workers, which the first epoch starts and whose start is not counted. The first epoch
with the cache decodes, the later ones read memory; epochs without a cache are taken in turn with
those, so that other programs on the machine meet both alike. CPU is that of this process and its
workers, and says more than the clock where the machine is busy.
"""

import argparse
import os
import statistics
import tempfile
import time
from multiprocessing import Process
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.registry import DefaultScope
from PIL import Image
from torch.utils.data import DataLoader

from gleam_mm.config import recipes
from gleam_mm.datasets import VTAB1K
from gleam_mm.prepare.printout import summary
from gleam_mm.prepare.verify import verify


def write_images(root: Path, number: int, size: int) -> None:
    """The cifar task with so many training images: smooth noise, which JPEG keeps at some size."""
    images = root / 'cifar' / 'images'
    images.mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines = []
    for index in range(number):
        coarse = Image.fromarray(rng.integers(0, 256, (28, 28, 3), dtype=np.uint8))
        coarse.resize((size, size), Image.Resampling.BICUBIC).save(images / f'{index:06}.jpg')
        lines.append(f'images/{index:06}.jpg {index % 100}\n')
    (root / 'cifar' / 'train800val200.txt').write_text(''.join(lines))


def make_dataset(cfg: Config, root: Path, cache: bool) -> VTAB1K:
    with DefaultScope.overwrite_default_scope('gleam_mm'):
        return VTAB1K(
            'cifar',
            'train800val200',
            str(root),
            cache=cache,
            pipeline=cfg.train_dataloader.dataset.pipeline,
        )


def make_loader(dataset: VTAB1K, workers: int) -> DataLoader:
    return DataLoader(
        dataset,
        batch_size=32,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=default_collate,
    )


def cpu(workers: list[Process]) -> float:
    """CPU seconds that this process and its workers have used so far."""
    ticks = 0
    for worker in workers:
        fields = (
            Path(f'/proc/{worker.pid}/stat').read_text(encoding='utf-8').rsplit(')', 1)[1].split()
        )
        ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / os.sysconf('SC_CLK_TCK')


def epoch(loader: DataLoader) -> tuple[float, float]:
    """Seconds and CPU seconds of an epoch, without the start of the workers."""
    batches = iter(loader)
    workers = getattr(batches, '_workers', [])
    start, used = time.perf_counter(), cpu(workers)
    for _ in batches:
        pass
    return time.perf_counter() - start, cpu(workers) - used


def cache(args: argparse.Namespace) -> None:
    cfg = recipes.load('vit-b_gleam-l_vtab-cifar')
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_images(root, args.images, args.size)
        print(f'{args.images} JPEG files of {args.size} x {args.size}, resized to 224 x 224')
        print(f'{"workers":>7}{"":28}{"seconds":>9}{"ratio":>7}{"CPU s":>9}{"ratio":>7}')
        for workers in args.workers:
            dataset = make_dataset(cfg, root, cache=True)
            cached = make_loader(dataset, workers)
            plain = make_loader(make_dataset(cfg, root, cache=False), workers)
            first, later, never = epoch(cached), [], []
            for _ in range(args.epochs):
                later.append(epoch(cached))
                never.append(epoch(plain))
            rows = {
                'cache, first epoch': first,
                'cache, later epochs': tuple(map(statistics.median, zip(*later, strict=True))),
                'no cache': tuple(map(statistics.median, zip(*never, strict=True))),
            }
            base = rows['cache, later epochs']
            for name, (clock, used) in rows.items():
                print(
                    f'{workers:>7}  {name:26}{clock:>9.3f}{clock / base[0]:>7.1f}'
                    f'{used:>9.3f}{used / base[1]:>7.1f}'
                )
        print(f'shared memory: {dataset._image_cache.nbytes / 2**20:.1f} MiB')


def check(args: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / 'dsprites_loc' / 'images' / 'test'
        images.mkdir(parents=True)
        data = b'not decoded'
        lines = []
        for index in range(args.lines):
            (images / f'{index:06}.jpg').write_bytes(data)
            lines.append(f'images/test/{index:06}.jpg {index % 16}\n')
        for split, stop in (('train800', 800), ('val200', 200), ('train800val200', 1000)):
            (images.parents[1] / f'{split}.txt').write_text(''.join(lines[:stop]))
        (images.parents[1] / 'test.txt').write_text(''.join(lines))
        start = time.perf_counter()
        reports = list(verify('vtab-1k', Path(folder), ['dsprites_loc'], any_size=True))
        print(f'verify: {summary(reports)}, {time.perf_counter() - start:.2f} s')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--only', choices=('cache', 'verify'))
    parser.add_argument('--images', type=int, default=1000)
    parser.add_argument('--size', type=int, default=224, help='pixels a side of the files')
    parser.add_argument('--workers', type=int, nargs='+', default=[0, 2])
    parser.add_argument('--epochs', type=int, default=3, help='epochs after the first')
    parser.add_argument('--lines', type=int, default=73728, help='lines of the list to verify')
    args = parser.parse_args()
    if args.only != 'verify':
        cache(args)
    if args.only != 'cache':
        check(args)


if __name__ == '__main__':
    main()
