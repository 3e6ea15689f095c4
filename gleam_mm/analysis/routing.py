"""Which experts the gate of a mixture chooses, and for what."""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gleam_mm.analysis.subjects import (
    AnalysisError,
    Subject,
    batches,
    build_dataset,
    choose,
    class_names,
    describe_data,
)
from gleam_mm.layouts import Site
from gleam_mm.petl.moe import ConvMoE


class NoGateError(AnalysisError):
    """A method without a mixture of experts."""


class RoutingProbe:
    """Reads the decisions of a method's gate, in a ``with`` block, as the model makes them.

    A decision is one row of gate weights: one an image at a site or, where attention is windowed,
    one a window; more of them where GLEAM's gate decides for tokens or blocks. The gate is that of
    evaluation mode, without noise.

    Args:
        subject: A model whose method has a mixture of experts.

    Attributes:
        sites (list): The sites whose updates pass through the mixture.

    Raises:
        AnalysisError: The method has several.
        NoGateError: It has none.
    """

    def __init__(self, subject: Subject) -> None:
        mixing = [
            (member, module)
            for member in subject.model.petl.members()
            for module in member.shared.modules()
            if isinstance(module, ConvMoE)
        ]
        if not mixing:
            raise NoGateError(
                f'{subject.name}: {subject.method} has no mixture of experts to look into; a '
                'checkpoint of GLEAM (with moe=True) has one'
            )
        if len(mixing) > 1:
            raise AnalysisError(
                f'{subject.name}: {subject.method} has {len(mixing)} mixtures of experts, and this '
                'tells the decisions of one; analyze checkpoints of the methods by themselves'
            )
        method, self.mixer = mixing[0]
        self.sites = list(method.sites.values())
        self._site: Site | None = None
        self._decisions: dict[str, Tensor] = {}
        self._handles: list = []

    def __enter__(self) -> 'RoutingProbe':
        self._handles = [
            # In front of the method's own hook, which evaluates the mixture.
            site.module.register_forward_hook(partial(self._enter, site), prepend=True)
            for site in self.sites
        ]
        self.mixer.route = partial(self._route, self.mixer.route)
        self._fused, self.mixer.fused = self.mixer.fused, False  # one kernel tells no gates
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()
        del self.mixer.route  # that of the instance; the class has the real one
        self.mixer.fused = self._fused

    def take(self) -> dict[str, Tensor]:
        """Hands over the decisions of the last forward pass.

        Returns:
            Name of the site -> gate weights of shape (decisions, n), image by image.
        """
        decisions, self._decisions = self._decisions, {}
        return decisions

    def _enter(self, site: Site, module: nn.Module, args: tuple, output: Tensor) -> None:
        self._site = site

    def _route(self, route: Any, h: Tensor, *args: Any) -> Tensor:
        weights = route(h, *args)
        self._decisions[self._site.name] = weights.flatten(0, -2)
        return weights


class RoutingSums:
    """Sums over decisions at one site, by class.

    Args:
        classes: Number of classes C.
        experts: Number of experts n.
    """

    def __init__(self, classes: int, experts: int) -> None:
        self.chosen = torch.zeros(classes, experts, dtype=torch.float64)
        self.weight = torch.zeros_like(self.chosen)
        self.decisions = torch.zeros(classes, dtype=torch.float64)
        self.entropy = 0.0

    def update(self, weights: Tensor, labels: Tensor) -> None:
        """Adds decisions.

        Args:
            weights: Gate weights of shape (B D, n), D decisions an image, image by image.
            labels: Classes of the B images.
        """
        weights = weights.double().cpu()
        labels = labels.cpu().repeat_interleave(len(weights) // len(labels))
        self.chosen.index_add_(0, labels, (weights > 0).double())
        self.weight.index_add_(0, labels, weights)
        self.decisions.index_add_(0, labels, torch.ones(len(labels), dtype=torch.float64))
        # Without renormalize the weights of the k sum to less than one.
        shares = weights / weights.sum(-1, keepdim=True)
        self.entropy += torch.special.entr(shares).sum().item()

    def result(self) -> dict[str, Any]:
        """The statistics of the site.

        Returns:
            ``share``: the part of decisions that choose an expert; its sum is k. ``weight``: mean
            gate weight; its sum is 1, or less without ``renormalize``. ``load_cv``: the shares'
            standard deviation over their mean (Shazeer et al., 2017). ``gate_entropy``: mean
            entropy of the gate weights by their sum, in nats, at most ln k. ``class_information``:
            mutual information in nats of the class and one of the k chosen experts taken at random;
            0 where all classes share their experts. ``share_by_class``: NaN for a class without
            images.
        """
        total = self.decisions.sum()
        share = self.chosen.sum(0) / total
        return {
            'share': share.tolist(),
            'weight': (self.weight.sum(0) / total).tolist(),
            'load_cv': (share.std(correction=0) / share.mean()).item(),
            'gate_entropy': self.entropy / total.item(),
            'class_information': _mutual_information(self.chosen),
            'share_by_class': (self.chosen / self.decisions[:, None]).tolist(),
            'weight_by_class': (self.weight / self.decisions[:, None]).tolist(),
            'decisions': int(total),
        }


def measure(
    subject: Subject,
    split: str = 'test',
    max_images: int | None = None,
    batch_size: int = 64,
) -> dict[str, Any]:
    """Counts which experts are chosen over a dataset. Holds sums, and one batch.

    Args:
        subject: A model whose method has a mixture of experts.
        split: ``train``, ``val`` or ``test``.
        max_images: At most so many images, evenly spaced over the split.
        batch_size: Images a batch.

    Returns:
        What the JSON of ``tools/analyze.py routing`` has for a subject.

    Raises:
        NoGateError: The method has no mixture of experts.
    """
    probe = RoutingProbe(subject)
    dataset = build_dataset(subject.cfg, split)
    indices = choose(len(dataset), max_images)
    names = class_names(dataset, subject.cfg.model.head.num_classes)
    sums = {site.name: RoutingSums(len(names), probe.mixer.num_experts) for site in probe.sites}
    with torch.inference_mode(), probe:
        for images, samples in batches(subject, dataset, indices, batch_size):
            subject.model.extract_feat(images)
            labels = torch.tensor([int(sample.gt_label) for sample in samples])
            for name, weights in probe.take().items():
                sums[name].update(weights, labels)
    return {
        **subject.describe(),
        'data': describe_data(subject.cfg, dataset, split, len(indices)),
        'top_k': probe.mixer.top_k,
        'scales': list(probe.mixer.scales),
        'classes': names,
        'sites': [
            {
                'site': site.name,
                'role': site.role,
                'block': site.block,
                'stage': site.stage,
                **sums[site.name].result(),
            }
            for site in probe.sites
        ],
    }


def _mutual_information(counts: Tensor) -> float:
    joint = counts / counts.sum()
    independent = joint.sum(1, keepdim=True) * joint.sum(0)
    there = joint > 0
    found = (joint[there] * (joint[there] / independent[there]).log()).sum().item()
    return max(found, 0.0) if math.isfinite(found) else math.nan
