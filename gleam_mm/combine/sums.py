"""One adapter out of several, or the opposite of one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor

from gleam_mm.checkpoint import CheckpointError, save_adapter
from gleam_mm.combine import arithmetic, lowrank
from gleam_mm.combine.files import (
    Trained,
    counters,
    each_part,
    is_head,
    parts,
    read,
    require_alike,
)
from gleam_mm.combine.lowrank import Product
from gleam_mm.combine.origins import is_opposite, origins
from gleam_mm.fileio import require_new
from gleam_mm.messages import listed
from gleam_mm.models.description import versions

HOWS = ('mean', 'product', 'ties', 'dare', 'metric', 'negate')
"""The ways of :func:`combine`."""

DENSITIES = {'ties': 0.2, 'dare': 0.1}
"""The share of numbers that is kept, by the papers' defaults."""

_FACTORS = ('mean', 'metric')
_KEPT = (
    *('method', 'model', 'backbone', 'neck', 'head', 'precision'),
    *('data_preprocessor', 'pipeline', 'classes'),
)


@dataclass(frozen=True)
class Combined:
    """What :func:`combine` has written.

    Attributes:
        weights: The weight of each file.
        ranks: The ranks of its LoRAs; empty where it has none, or where factors were averaged.
        energy: The share of the updates' squared norm that a cut to this rank keeps; None where
            nothing was cut.
    """

    weights: list[float]
    ranks: list[int]
    energy: float | None


def combine(
    files: Sequence[str | Path],
    out: str | Path,
    how: str = 'mean',
    weights: Sequence[float] | None = None,
    *,
    rank: int | None = None,
    density: float | None = None,
    seed: int = 0,
    metric: str | None = None,
    power: float = 1.0,
    head: str | Path | None = None,
    cfg: Config | None = None,
) -> Combined:
    r"""Writes the sum of adapters as an ordinary adapter file.

    ``'mean'`` averages every parameter, ``'metric'`` the same with weights :math:`w_i \propto
    m_i^p` of the validation metrics m that the files tell. All others act on *updates*. That of a
    LoRA is a product, so that ``'product'`` averages what A and B do rather than A and B:

    .. math::
        \sum_i w_i B_i A_i = [w_1 B_1, \dots, w_n B_n] \, [A_1; \dots; A_n]

    exactly with all ranks together, or cut to ``rank`` by a singular value decomposition.
    ``'ties'`` (Yadav et al., 2023) and ``'dare'`` (Yu et al., 2024) sum matrices, which are cut to
    ``rank``, by default that of the first file. Any other parameter has changed from where it
    starts; that is read off the model, whose backbone's weights have to be there for it, and taken
    to be zero where a start is random. ``'negate'`` turns an update around.

    The head is averaged between files of the same classes, with weights that sum to 1. Of tasks
    with different classes, ``head`` says which one's the result has.

    Args:
        files: Adapter files or ``.pth`` checkpoints of one method on one backbone.
        out: The ``.safetensors`` file to write.
        how: One of :data:`HOWS`.
        weights: One for each file; by default equal ones that sum to 1, for ``'ties'`` and
            ``'negate'`` 1 each.
        rank: What the low-rank updates are cut to.
        density: The share of numbers that TIES and DARE keep; by default :data:`DENSITIES`.
        seed: Of what DARE drops.
        metric: The validation metric that gives the weights; needed where files have several.
        power: The exponent p; negative where less is better.
        head: The file, one of ``files``, whose head and classes the result has.
        cfg: The config of the trainings, where the files do not say their model.

    Raises:
        FileExistsError: ``out`` exists.
        FileNotFoundError: A file, or the weights of the backbone where they are needed, do not
            exist.
        CheckpointError: Files are damaged, or do not go together; or one has numbers that are
            infinite or NaN, or the result would have.
        MergeError: ``'negate'`` of what changes no weights.
        ValueError: Arguments do not fit each other.
    """
    require_new(out)
    trained = [read(path) for path in files]
    for t in trained:
        _require_finite(t.tensors, t.path, 'of a training that diverged; leave the file out')
    density = _checked(trained, how, weights, rank, density, metric, power)
    require_alike(trained, (lambda part, _: part) if how in _FACTORS else _loose)
    chosen = _weights(trained, how, weights, metric, power)
    job = _Job(trained, how, chosen, rank, density, torch.Generator().manual_seed(seed), cfg)
    tensors, method = job.run()
    with_head = _head_of(trained, head)
    tensors |= _heads(trained if with_head is None else [with_head], chosen)

    first = trained[0].metadata
    metadata = {key: first[key] for key in _KEPT if key in first}
    if with_head is not None:
        metadata |= {k: with_head.metadata[k] for k in ('head', 'classes') if k in first}
    metadata |= {
        'method': method,
        'backbone_fingerprint': first['backbone_fingerprint'],
        'versions': versions(),
        'combined': {'how': how, 'of': {t.path: w for t, w in zip(trained, chosen, strict=True)}},
    }
    _require_finite(tensors, out, 'by weights or a density that are no use')
    save_adapter(out, tensors, metadata)
    energy = job.kept / job.whole if job.whole else None
    return Combined(chosen, job.ranks, energy)


@dataclass
class _Job:
    """A sum under way."""

    trained: list[Trained]
    how: str
    weights: list[float]
    rank: int | None
    density: float
    generator: torch.Generator
    cfg: Config | None
    ranks: list[int] = field(default_factory=list)
    kept: float = 0.0
    whole: float = 0.0

    def run(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The tensors but for the head, and the config of the method."""
        first = self.trained[0]
        configs = [dict(parts(t.metadata['method'])) for t in self.trained]
        loras = [prefix for prefix, config in configs[0].items() if lowrank.is_lora(config)]
        alone = len(loras) == len(configs[0])
        if self.how in _FACTORS or (self.how == 'negate' and not alone):
            loras = []
        if self.how == 'product' and not loras:
            raise CheckpointError(
                f'{first.path}: has no LoRA, whose updates are products; its parameters have a mean'
            )
        tensors: dict[str, Tensor] = {}
        plain: dict[str, dict[str, Any]] = {}
        taken: set[str] = set()
        for prefix in loras:
            updates = [
                lowrank.products(c[prefix], prefix, t.tensors)
                for c, t in zip(configs, self.trained, strict=True)
            ]
            for t, update in zip(self.trained, updates, strict=True):
                if strange := update.keys() ^ updates[0].keys():
                    raise CheckpointError(
                        f'{t.path} and {first.path}: only one of them has {min(strange)}up'
                    )
            for site in updates[0]:
                product = self._product([update[site] for update in updates])
                tensors[f'{site}up'], tensors[f'{site}down'] = product
                found = len(product.down)
            plain[prefix] = lowrank.plain_lora(configs[0][prefix], found)
            self.ranks.append(found)
            for t in self.trained:
                taken |= lowrank.names_of(configs[0][prefix], prefix, t.tensors)
        tensors |= self._others(taken, configs)
        method = each_part(first.metadata['method'], lambda part, prefix: plain.get(prefix, part))
        return tensors, method

    def _product(self, updates: list[Product]) -> Product:
        if self.how in ('product', 'negate'):
            signs = [-w if self.how == 'negate' else w for w in self.weights]
            exact = lowrank.concatenated(updates, signs)
            if self.rank is None:
                return exact
            product, kept, whole = lowrank.cut(exact, self.rank)
        else:
            matrix = self._sum([update.matrix for update in updates])
            rank = self.rank or len(updates[0].down)
            product, kept, whole = lowrank.cut_matrix(matrix, rank)
        self.kept, self.whole = self.kept + kept, self.whole + whole
        return product

    def _sum(self, tasks: list[Tensor]) -> Tensor:
        if self.how == 'ties':
            return arithmetic.ties(tasks, self.weights, self.density)
        if self.how == 'dare':
            return arithmetic.dare(tasks, self.weights, self.density, self.generator)
        return arithmetic.weighted(tasks, self.weights)

    def _others(self, taken: set[str], configs: list[dict]) -> dict[str, Tensor]:
        """What is neither of a LoRA nor of the head."""
        first = self.trained[0]
        names = [n for n in first.tensors if n not in taken and not is_head(n)]
        for t in self.trained:
            strange = {n for n in t.tensors if n not in taken and not is_head(n)} ^ {*names}
            strange |= {
                n for n in {*names} - strange if t.tensors[n].shape != first.tensors[n].shape
            }
            if strange:
                raise CheckpointError(
                    f'{t.path} and {first.path}: only one of them has {min(strange)} in this shape'
                )
        tensors = {name: first.tensors[name] for name in names}
        counting = {name for name in names if name.endswith('.num_batches_tracked')}  # of norms
        for prefix, config in configs[0].items():
            counting |= counters(config, prefix) & tensors.keys()
        for name in counting:
            tensors[name] = torch.stack([t.tensors[name] for t in self.trained]).amax(0)
        names = [name for name in names if name not in counting]
        moved = [n for n in names if not _equal([t.tensors[n] for t in self.trained])]
        if self.how == 'negate':
            moved = [n for n in names if first.tensors[n].is_floating_point()]
        for name in moved:
            if not first.tensors[name].is_floating_point():
                raise CheckpointError(
                    f'{first.path}: {name} are whole numbers, such as places, and differ between '
                    'the files: there is no sum of them'
                )
        if any(config.get('bits') for prefix, config in configs[0].items() if moved):
            raise CheckpointError(
                f'{first.path}: matrices of few bits, of which there are no sums with as few; '
                'product takes those of a LoRA'
            )
        if not moved:
            return tensors
        if self.how == 'negate':
            return tensors | self._opposite(moved)
        affine = self.how in (*_FACTORS, 'product') and math.isclose(sum(self.weights), 1)
        start = {} if affine else origins(first, moved, self.cfg)
        for name in moved:
            zero = start.get(name)
            if zero is None:
                zero = torch.zeros(())
            tensors[name] = zero + self._sum([t.tensors[name] - zero for t in self.trained])
        return tensors

    def _opposite(self, names: list[str]) -> dict[str, Tensor]:
        """Parameters on the other side of their start.

        A product changes its sign with one of its factors alone. Which of those that start at a
        place of their own, such as zero or one, has to move, the backbone's weights tell.
        """
        (trained,), (weight,) = self.trained, self.weights
        found = origins(trained, names, self.cfg)
        start = {name: zero for name, zero in found.items() if zero is not None}
        kinds = sorted({name.rpartition('.')[2] for name in start})
        candidates = [start, {name: zero for name, zero in start.items() if not zero.any()}]
        candidates += [{n: z for n, z in start.items() if n.endswith(f'.{k}')} for k in kinds]
        for chosen in candidates:
            mirrored = {n: z - weight * (trained.tensors[n] - z) for n, z in chosen.items()}
            if is_opposite(trained, trained.tensors | mirrored, weight, self.cfg):
                return mirrored
        raise CheckpointError(
            f'{trained.path}: the opposite of its update is not one of its method'
        )


def _checked(
    trained: Sequence[Trained],
    how: str,
    weights: Sequence[float] | None,
    rank: int | None,
    density: float | None,
    metric: str | None,
    power: float,
) -> float:
    """Refuses arguments that do not fit; gives the density."""
    if how not in HOWS:
        raise ValueError(f'how={how!r}: choose {", ".join(HOWS)}')
    if how == 'negate' and len(trained) != 1:
        raise ValueError(f'how=negate takes one file, not {len(trained)}')
    if how != 'negate' and len(trained) < 2:
        raise ValueError(f'how={how}: give two files or more')
    if weights is not None and len(weights) != len(trained):
        raise ValueError(f'{len(weights)} weights for {len(trained)} files')
    if weights is not None and not all(map(math.isfinite, weights)):
        raise ValueError(f'weights={listed(weights)}: give finite numbers')
    if not math.isfinite(power):
        raise ValueError(f'power={power}: give a finite number')
    if rank is not None and (how in _FACTORS or rank < 1):
        raise ValueError(f'rank={rank}: products are cut to a rank of at least 1; how={how}')
    if density is not None and (how not in DENSITIES or not 0 < density <= 1):
        raise ValueError(f'density={density}: a share above 0 and up to 1, for ties and dare')
    if (metric is not None or weights is not None) and (how == 'metric') == (metric is None):
        raise ValueError('metric names what how=metric makes weights of: give one of both')
    if how == 'mean' and weights is not None and not math.isclose(sum(weights), 1):
        raise ValueError(
            f'the weights of a mean sum to 1, not {sum(weights):g}; product takes others'
        )
    return density if density is not None else DENSITIES.get(how, 1.0)


def _loose(part: dict[str, Any], prefix: str) -> dict[str, Any]:
    """What LoRAs whose products are added have to have in common."""
    return {**lowrank.plain_lora(part, 1), 'drop_rate': 0.0} if lowrank.is_lora(part) else part


def _weights(
    trained: Sequence[Trained],
    how: str,
    weights: Sequence[float] | None,
    metric: str | None,
    power: float,
) -> list[float]:
    if weights is not None:
        return list(weights)
    if how in ('ties', 'negate'):
        return [1.0] * len(trained)
    if how != 'metric':
        return [1 / len(trained)] * len(trained)
    powers = torch.tensor([_metric(t, metric) for t in trained], dtype=torch.double) ** power
    total = powers.sum()
    if not 0 < total < math.inf:
        raise ValueError(f'power={power}: the weights are beyond numbers; choose one nearer to 0')
    return (powers / total).tolist()


def _metric(trained: Trained, name: str | None) -> float:
    """A metric of the validation, which is not of the test."""
    told = (trained.metadata.get('metrics') or {}).get('val') or {}
    numbers = {key: v for key, v in told.items() if isinstance(v, int | float)}
    if name is None and len(numbers) == 1:
        name = next(iter(numbers))
    if name not in numbers:
        raise CheckpointError(
            f'{trained.path}: has no validation metric {name or "of a single name"}; it has '
            f'{", ".join(numbers) or "none"}'
        )
    if not 0 < numbers[name] < math.inf:
        raise CheckpointError(
            f'{trained.path}: {name} is {numbers[name]}, of which no weight comes'
        )
    return float(numbers[name])


def _head_of(trained: Sequence[Trained], head: str | Path | None) -> Trained | None:
    """The file whose head is taken, where it is one's; None where heads are averaged.

    Raises:
        CheckpointError: The tasks have different classes, and none is chosen.
        ValueError: The chosen one is none of the files.
    """
    if head is not None:
        for t in trained:
            if t.path == str(head):
                return t
        raise ValueError(f'head={head}: choose one of {", ".join(t.path for t in trained)}')
    first = trained[0]
    for other in trained[1:]:
        pair = [
            (t.metadata.get('classes'), {n: x.shape for n, x in t.tensors.items() if is_head(n)})
            for t in (first, other)
        ]
        if pair[0] != pair[1]:
            raise CheckpointError(
                f'{first.path} and {other.path} have different classes: say whose head the result '
                'has (--head FILE), once for each task'
            )
    return None


def _heads(trained: Sequence[Trained], weights: Sequence[float]) -> dict[str, Tensor]:
    """The head of one file, or the average of several."""
    names = [name for name in trained[0].tensors if is_head(name)]
    if len(trained) == 1:
        return {name: trained[0].tensors[name] for name in names}
    total = sum(weights)
    if math.isclose(total, 0, abs_tol=1e-9):
        raise CheckpointError('weights that sum to 0 average no heads: choose one (--head FILE)')
    shares = [weight / total for weight in weights]
    return {name: arithmetic.weighted([t.tensors[name] for t in trained], shares) for name in names}


def _require_finite(tensors: Mapping[str, Tensor], path: str | Path, why: str) -> None:
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise CheckpointError(f'{path}: {name} has numbers that are infinite or NaN, {why}')


def _equal(tensors: Sequence[Tensor]) -> bool:
    return all(torch.equal(tensors[0], other) for other in tensors[1:])
