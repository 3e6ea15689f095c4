"""What a sweep consists of: every training of it, known before the first one starts.

The protocol of VTAB-1K: each point of a grid is trained on ``train800`` and judged on ``val200``;
the best one is trained on all 1,000 images with each seed, and tested once, at the last epoch.
"""

import dataclasses
import hashlib
import itertools
import re
from collections.abc import Mapping
from typing import Any

SELECT, FINAL = 'select', 'final'
OPTION_PREFIX = 'model.petl.'

_LONGEST_NAME = 180  # of a folder


@dataclasses.dataclass(frozen=True)
class Job:
    """One training of a sweep.

    Attributes:
        phase: ``select`` or ``final``.
        method: Name of a method or variant.
        dataset: Name of a dataset.
        seed: Seed of everything random.
        options: The grid's values. In a final job the best ones, once they are known.
    """

    phase: str
    method: str
    dataset: str
    seed: int
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def key(self) -> str:
        """What tells the job from all others; the options of a final job follow from the rest."""
        return '/'.join(self._parts)

    @property
    def folder(self) -> str:
        """The key as a path, relative to the folder of the sweep and never outside of it."""
        return '/'.join(map(_path_part, self._parts))

    @property
    def _parts(self) -> list[str]:
        point = [options_text(self.options)] if self.phase == SELECT else []
        return [self.phase, f'{self.method}_{self.dataset}', *point, f'seed{self.seed}']

    def __str__(self) -> str:
        options = options_text(self.options)
        return ' '.join(
            [
                self.phase,
                self.method,
                self.dataset,
                *([options] if options else []),
                f'seed {self.seed}',
            ]
        )


@dataclasses.dataclass(frozen=True)
class Variant:
    """A method under a name of its own, with options that its recipe does not have.

    Attributes:
        method: Name of the method whose recipe it is.
        options: Named as in a grid: bare names are options of the method, others keys of the
            config.
    """

    method: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Sweep:
    """The settings of a sweep; what is stored in the database, as they were when it began.

    Attributes:
        backbone: Name of the backbone.
        methods: Names of methods and variants.
        datasets: Names of datasets.
        seeds: Seeds of the final trainings; the first ones are also those of the selection.
        trial_seeds: With how many seeds each point of a grid is trained. With one, a point may be
            chosen that another seed would not survive.
        grid: By method the values of each option that it has; empty without a selection.
        options: Overrides of every config, such as ``{'train_cfg.max_epochs': 2}``.
        variants: What the names among the methods stand for that are not plain methods.
        final: Whether there is a final phase; if not, only the selection.
        heartbeat: Seconds between a worker's signs of life. A worker that misses three is dead.
    """

    backbone: str
    methods: tuple[str, ...]
    datasets: tuple[str, ...]
    seeds: tuple[int, ...] = (0,)
    trial_seeds: int = 1
    grid: dict[str, dict[str, list]] = dataclasses.field(default_factory=dict)
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    variants: dict[str, Variant] = dataclasses.field(default_factory=dict)
    final: bool = True
    heartbeat: int = 20

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> 'Sweep':
        """The sweep of stored settings; those that older studies lack are the defaults."""
        lists = {name: tuple(settings[name]) for name in ('methods', 'datasets', 'seeds')}
        variants = {
            name: Variant(**stored) for name, stored in settings.get('variants', {}).items()
        }
        return cls(**{**settings, **lists, 'variants': variants})

    def to_dict(self) -> dict[str, Any]:
        """Settings that can be stored as JSON."""
        return dataclasses.asdict(self)

    def variant(self, method: str) -> Variant:
        """What one of the sweep's methods stands for."""
        return self.variants.get(method) or Variant(method)

    def points(self, method: str) -> list[dict[str, Any]]:
        """The points of a method's grid; of a method without one, none."""
        grid = self.grid.get(method) or {}
        if not grid:
            return []
        return [
            dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())
        ]

    def select_jobs(self, method: str, dataset: str) -> list[Job]:
        """The trainings that the options of a method on a dataset are chosen by."""
        seeds = self.seeds[: self.trial_seeds]
        points = itertools.product(self.points(method), seeds)
        return [Job(SELECT, method, dataset, seed, point) for point, seed in points]

    def final_jobs(
        self, method: str, dataset: str, options: Mapping[str, Any] | None = None
    ) -> list[Job]:
        """The trainings that are tested, with the chosen options; none without a final phase."""
        seeds = self.seeds if self.final else ()
        return [Job(FINAL, method, dataset, seed, dict(options or {})) for seed in seeds]

    def jobs(self, method: str, dataset: str) -> list[Job]:
        """All trainings of a method on a dataset, the select phase before the final one."""
        return [*self.select_jobs(method, dataset), *self.final_jobs(method, dataset)]

    def pairs(self) -> list[tuple[str, str]]:
        """Every method on every dataset."""
        return list(itertools.product(self.methods, self.datasets))

    def turn(self, job: Job) -> tuple[bool, int]:
        """What trainings are run by: the smallest first.

        The selection comes first, then one seed after another, so that a sweep that is ended early
        has whole tables of fewer seeds.
        """
        return job.phase == FINAL, self.seeds.index(job.seed)

    def recipe(self, method: str, dataset: str) -> str:
        """The recipe that a method or variant changes."""
        return f'{self.backbone}_{self.variant(method).method}_{dataset}'

    def config_options(self, job: Job) -> dict[str, Any]:
        """All overrides of a job's config: the sweep's, then the variant's, then the point's."""
        options = dict(self.options)
        for own in (self.variant(job.method).options, job.options):
            for name, value in own.items():
                options.pop(option_key(name), None)  # merged last, over a part that holds it
                options[option_key(name)] = value
        return options


def option_key(name: str) -> str:
    """The key in the config of an option of a grid or variant: a bare name is of the method."""
    return name if '.' in name else OPTION_PREFIX + name


def in_parts(options: Mapping[str, Any], *paths: str) -> dict[str, Any]:
    """Overrides by the same keys whether or not they come as a whole: ``model.petl=dict(rank=8)``.

    Args:
        options: By keys of the config.
        paths: What holds one of these keys, or what it begins with, is taken apart.
    """
    parts: dict[str, Any] = {}
    for key, value in options.items():
        if isinstance(value, Mapping) and any(path.startswith(f'{key}.') for path in paths):
            parts |= in_parts({f'{key}.{name}': inner for name, inner in value.items()}, *paths)
        else:
            parts[key] = value
    return parts


def options_text(options: Mapping[str, Any]) -> str:
    """Options as ``alpha=0.1,top_k=2``."""
    return ','.join(f'{name}={value}' for name, value in options.items())


def _path_part(text: str) -> str:
    """A text as the name of a folder: as it is, or with a digest of it."""
    safe = re.sub(r'[^\w.,=+-]', '-', text).lstrip('.')[:_LONGEST_NAME]
    return safe if safe == text else f'{safe}-{hashlib.sha256(text.encode()).hexdigest()[:8]}'
