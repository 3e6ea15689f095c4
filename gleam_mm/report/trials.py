"""What studies measured, gathered into rows of tables. Only final trainings count.

A row is a method on a backbone. Seeds are averaged for each task; the average of a suite is the
mean of its group means, as in the paper, and is there only if every task is.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from gleam_mm.report import paper
from gleam_mm.report.suites import Group, Suite
from gleam_mm.sweep.cells import RUNNING, WAITING, best_point
from gleam_mm.sweep.groups import over_seeds
from gleam_mm.sweep.plan import FINAL, OPTION_PREFIX, SELECT, Variant, in_parts, option_key
from gleam_mm.sweep.results import Result

if TYPE_CHECKING:  # it imports Optuna
    from gleam_mm.sweep.study import SweepStudy

SHOTS = 'train_dataloader.dataset.shots'  # the override that sets images a class


@dataclass(frozen=True)
class Study:
    """A study.

    Attributes:
        name: What to call it.
        results: Its trainings.
        overrides: What it changed in every config, such as ``{'train_cfg.max_epochs': 2}``.
        variants: What names of its methods stand for that are not plain methods.
        storage: What to call the place where it is stored.
        identity: What tells it from others of the same name.
    """

    name: str
    results: list[Result]
    overrides: dict[str, Any] = field(default_factory=dict)
    variants: Mapping[str, Variant] = field(default_factory=dict)
    storage: str = ''
    identity: str = ''

    @property
    def changes(self) -> dict[str, Any]:
        """The overrides, the number of shots aside, which tables name."""
        return {key: value for key, value in _in_parts(self.overrides).items() if key != SHOTS}

    def variant(self, method: str) -> Variant:
        """A method or variant as a variant whose options are all that the study changed."""
        variant = self.variants.get(method) or Variant(method)
        own = {option_key(name): value for name, value in variant.options.items()}
        return replace(variant, options={**self.changes, **_in_parts(own)})

    def shots(self, final: Result) -> int | None:
        """Images a class that a training has, where anything says so."""
        options = {**_in_parts(self.overrides), **self.variant(final.method).options}
        return {**options, **chosen_of(final)}.get(SHOTS)

    @property
    def chooses(self) -> bool:
        """Whether trainings that choose options are still to be run."""
        return any(r.phase == SELECT and r.state in (WAITING, RUNNING) for r in self.results)

    @property
    def finals(self) -> list[Result]:
        """The trainings that were, or will be, tested."""
        return [result for result in self.results if result.phase == FINAL]


def open_study(storage: str, name: str | None = None) -> Study:
    """Reads a study.

    Args:
        storage: The name of a sweep, the path of an SQLite file, or the URL of a database.
        name: Name of the study; may be left out where the storage holds one.

    Raises:
        UserError: See :func:`gleam_mm.sweep.read_results`.
    """
    from gleam_mm.sweep import study as studies  # imports Optuna

    return of_sweep(studies.open_study(storage, name, read_only=True))


def of_sweep(opened: 'SweepStudy') -> Study:
    """What a study of a sweep has come to by now."""
    sweep = opened.sweep
    return Study(
        opened.name,
        opened.results(),
        dict(sweep.options),
        sweep.variants,
        opened.url,
        opened.identity,
    )


def choosing(study: Study) -> Study:
    """The best point of each method and dataset so far, as if it were a final training."""
    pairs: dict[tuple[str, str], list[Result]] = {}
    for result in study.results:
        if result.phase == SELECT:
            pairs.setdefault((result.method, result.dataset), []).append(result)
    finals = []
    for results in pairs.values():
        point = best_point(results)
        best = point.trainings if point else results[:1]
        for training in best:
            shots = {key: value for key, value in chosen_of(training).items() if key == SHOTS}
            finals.append(replace(training, phase=FINAL, options=shots))
    return replace(study, results=finals)


@dataclass(frozen=True)
class Score:
    """An accuracy in %, averaged over seeds.

    Attributes:
        mean: Over seeds.
        deviation: Sample standard deviation over seeds; None of a single one.
        seeds: How many seeds were tested.
        planned: How many there are to be.
    """

    mean: float
    deviation: float | None
    seeds: int
    planned: int

    @property
    def partial(self) -> bool:
        """Whether seeds are missing."""
        return self.seeds < self.planned


@dataclass(frozen=True, eq=False)
class Row:
    """A method on a backbone, and what its final trainings came to.

    Attributes:
        backbone: Name of the backbone, as in recipes.
        method: Name of the method, as in recipes, or of a variant.
        variant: The method of its recipe, and what its study changed in every config of it.
        finals: Its final trainings, done or not.
        shots: Images a class, in suites that have such a choice.
        remark: What tells it from other rows of the same method; mostly empty.
    """

    backbone: str
    method: str
    variant: Variant
    finals: tuple[Result, ...]
    shots: int | None = None
    remark: str = ''

    @property
    def name(self) -> str:
        """What tables call it."""
        return paper.method_name(self.method) + (f' ({self.remark})' if self.remark else '')

    @cached_property
    def _accuracies(self) -> dict[str, dict[int, float]]:
        """Dataset -> seed -> accuracy, of complete trainings."""
        found: dict[str, dict[int, float]] = {}
        for final in self.complete:
            found.setdefault(final.dataset, {})[final.seed] = final.accuracy
        return found

    @cached_property
    def complete(self) -> list[Result]:
        """The final trainings that are done."""
        return [final for final in self.finals if final.accuracy is not None]

    def score(self, dataset: str) -> Score | None:
        """The accuracy on a dataset, or None before a seed is tested."""
        if not (found := self._accuracies.get(dataset)):
            return None
        planned = {final.seed for final in self.finals if final.dataset == dataset}
        return Score(*over_seeds(list(found.values())), len(found), len(planned))

    def done(self, suite: Suite) -> int:
        """How many tasks of a suite were tested."""
        return sum(dataset in self._accuracies for dataset in suite.tasks)

    def group(self, group: Group) -> Score | None:
        """The mean over the tasks of a group, or None where one is missing."""
        return self._mean([list(group.tasks)])

    def average(self, suite: Suite) -> Score | None:
        """The mean of the group means, or None where a task is missing."""
        return self._mean([list(group.tasks) for group in suite.groups])

    def mean(self, datasets: Iterable[str]) -> Score | None:
        """The plain mean over datasets, or None where one is missing."""
        return self._mean([list(datasets)])

    def _mean(self, groups: Sequence[Sequence[str]]) -> Score | None:
        """The mean of group means; deviation over the seeds, if all tasks have the same ones."""
        datasets = [dataset for group in groups for dataset in group]
        scores = {dataset: self.score(dataset) for dataset in datasets}
        if not datasets or None in scores.values():
            return None
        mean = statistics.fmean(
            statistics.fmean(scores[dataset].mean for dataset in group) for group in groups
        )
        seeds = [set(self._accuracies[dataset]) for dataset in datasets]
        deviation = None
        if all(found == seeds[0] for found in seeds) and len(seeds[0]) > 1:
            deviation = statistics.stdev(
                statistics.fmean(
                    statistics.fmean(self._accuracies[dataset][seed] for dataset in group)
                    for group in groups
                )
                for seed in seeds[0]
            )
        return Score(
            mean,
            deviation,
            min(score.seeds for score in scores.values()),
            max(score.planned for score in scores.values()),
        )

    @cached_property
    def parameters(self) -> float | None:
        """Trained numbers, head excluded; the mean over tasks where tasks differ."""
        by_dataset: dict[str, list[int]] = {}
        for final in self.complete:
            if final.parameters is not None:
                by_dataset.setdefault(final.dataset, []).append(final.parameters)
        if not by_dataset:
            return None
        mean = statistics.fmean(statistics.fmean(values) for values in by_dataset.values())
        return int(mean) if mean == int(mean) else mean

    def paper(self, suite: Suite) -> paper.PaperRow | None:
        """The paper's row that this one is to be compared with, or None.

        None as well where an override or an option other than those that the paper tunes changed
        the method.
        """
        chosen = {key for final in self.finals for key in chosen_of(final)}
        changed = {
            key.removeprefix(OPTION_PREFIX)
            for key in chosen.union(self.variant.options)
            if key.startswith(OPTION_PREFIX)
        }
        if changed - paper.TUNED or suite.shots is not None:
            return None
        return paper.row(suite.key, self.backbone, self.method)


def chosen_of(final: Result) -> dict[str, Any]:
    """The grid's values that were chosen for a training, by keys of the config."""
    return _in_parts({option_key(name): value for name, value in final.options.items()})


def _in_parts(options: Mapping[str, Any]) -> dict[str, Any]:
    return in_parts(options, OPTION_PREFIX, SHOTS)


def rows(studies: Sequence[Study], suite: Suite) -> list[Row]:
    """Gathers the rows of a suite.

    Studies with the same overrides are joined (one may hold the natural tasks and another the
    rest), unless they tested the same method on the same dataset with the same seed: no choice is
    made between test results, each study then has its own row.

    Args:
        studies: The studies.
        suite: The suite.

    Returns:
        Rows in the order of the studies and their methods; of few-shot suites by rising shots.
    """
    gathered: dict[tuple, dict[int, list[Result]]] = {}
    for index, study in enumerate(studies):
        for final in study.finals:
            if final.dataset in suite.tasks:
                # Other suites have no rows by shots; what a study sets for all is an override.
                own = study.shots(final) if suite.shots else _in_parts(study.overrides).get(SHOTS)
                shots = own or suite.shots
                changes = study.variant(final.method).options
                key = (final.backbone, final.method, shots, repr(sorted(changes.items())))
                gathered.setdefault(key, {}).setdefault(index, []).append(final)

    found: list[tuple[int, Row]] = []
    for (backbone, method, drawn, _), by_study in gathered.items():
        seen = [{(f.dataset, f.seed) for f in finals} for finals in by_study.values()]
        parts = [by_study]
        if len(set().union(*seen)) < sum(map(len, seen)):  # the same training in two studies
            parts = [{index: finals} for index, finals in by_study.items()]
        for part in parts:
            first = min(part)
            finals = tuple(final for finals in part.values() for final in finals)
            variant = studies[first].variant(method)
            found.append((first, Row(backbone, method, variant, finals, suite.shots and drawn)))

    named = []
    for index, row in found:
        twins = [
            other
            for _, other in found
            if (other.backbone, other.method, other.shots) == (row.backbone, row.method, row.shots)
        ]
        remark = studies[index].name if len(twins) > 1 else ''
        named.append(replace(row, remark=remark))
    order = list(dict.fromkeys((row.backbone, row.method) for row in named))
    return sorted(named, key=lambda row: (order.index((row.backbone, row.method)), row.shots or 0))
