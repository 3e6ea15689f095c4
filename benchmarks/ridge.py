"""A linear probe in closed form: ridge regression on the frozen features of a backbone.

    python benchmarks/ridge.py vit-mini_linear_mini-digits
    python benchmarks/ridge.py CONFIG --cfg-options model.backbone.init_cfg=None    # at random

Prints the accuracies on validation and test with each of five penalties.
"""

import argparse
from collections.abc import Sequence

import torch
from mmengine.config import Config, DictAction
from mmengine.runner import Runner
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from gleam_mm.config import recipes
from gleam_mm.engine import fill_num_classes, launch
from gleam_mm.models import PETLClassifier
from gleam_mm.registry import MODELS, scope_of

PENALTIES = (0.1, 1.0, 10.0, 100.0, 1000.0)


def probe(cfg: Config, *judged: str) -> list[list[float]]:
    """Probes the backbone of a config, on the training split of the config.

    Args:
        cfg: The whole config; changed in place.
        *judged: Of which dataloaders, ``'val'`` or ``'test'``, the accuracy is told.

    Returns:
        For each of :data:`PENALTIES` the accuracy on each of these, in %.
    """
    cfg.train_dataloader.sampler.shuffle = False
    with scope_of(cfg):
        fill_num_classes(cfg)
        model = MODELS.build({**cfg.model, 'data_preprocessor': cfg.data_preprocessor}).eval()
        train, *others = (
            _features(model, Runner.build_dataloader(cfg[f'{split}_dataloader']))
            for split in ('train', *judged)
        )
    return accuracies(train, int(cfg.data_preprocessor.num_classes), others)


@torch.inference_mode()
def _features(model: PETLClassifier, loader: DataLoader) -> tuple[Tensor, Tensor]:
    """What the head reads of all images, (N, d) in double precision, and labels, (N,)."""
    read: list[Tensor] = []
    labels: list[Tensor] = []
    for batch in loader:
        data = model.data_preprocessor(batch)
        read.append(model.extract_feat(data['inputs'])[-1])
        labels += [sample.gt_label for sample in data['data_samples']]
    return torch.cat(read).double(), torch.cat(labels)


def accuracies(
    train: tuple[Tensor, Tensor], classes: int, judged: Sequence[tuple[Tensor, Tensor]]
) -> list[list[float]]:
    """Probes the features of a training split, standardised, with targets of zero and one.

    Args:
        train: Features of shape (N, d) in double precision, and labels of shape (N,).
        classes: Number of classes.
        judged: Features and labels of other splits.

    Returns:
        For each of :data:`PENALTIES` the accuracy on each of the other splits, in %.
    """
    x, labels = train
    mean, std = x.mean(0), x.std(0) + 1e-6
    x = (x - mean) / std
    targets = F.one_hot(labels, classes).to(x.dtype)
    offset = targets.mean(0)
    covariance, right = x.T @ x, x.T @ (targets - offset)
    identity = torch.eye(len(covariance), dtype=x.dtype)
    found = []
    for penalty in PENALTIES:
        weight = torch.linalg.solve(covariance + penalty * identity, right)
        found.append(
            [100 * _hits((other - mean) / std @ weight + offset, truth) for other, truth in judged]
        )
    return found


def _hits(scores: Tensor, labels: Tensor) -> float:
    return (scores.argmax(1) == labels).double().mean().item()


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='file or name of a recipe, whose backbone is probed')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={})
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Probes the backbone of a config."""
    args = parse_args(argv)
    torch.manual_seed(0)  # of a backbone that starts at random
    cfg = recipes.load(args.config, args.cfg_options)
    launch.set_dataloader_defaults(cfg)
    for penalty, (val, test) in zip(PENALTIES, probe(cfg, 'val', 'test'), strict=True):
        print(f'penalty {penalty:>6g}: val {val:.2f} %, test {test:.2f} %')


if __name__ == '__main__':
    main()
