"""Evolutionary search: the best of the subnets that a trained supernet holds.

A search in the manner of AutoFormer (Chen et al., 2021): random candidates first, then generations
of mutants and crossovers of the best so far, each judged once. GLoRA's code mutates and crosses
over alike, NOAH's otherwise; docs/supernets.md says how.

It is deterministic: the candidates of a generation follow from the settings and the scores of the
generations before. So the scores are all that has to be stored. A search that was killed is gone
through again from its start, with the stored scores in place of evaluations, and ends exactly as
it would have without the interruption.
"""

import hashlib
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from gleam_mm.arguments import Checked, Positive
from gleam_mm.fileio import write_bytes
from gleam_mm.shapes import (
    COUNT,
    NUMBER,
    TEXT,
    Shape,
    check,
    dict_of,
    fields,
    list_of,
    optional,
)

_INTEGER = Shape('a whole number', lambda v: isinstance(v, int) and not isinstance(v, bool))
_DOCUMENT = {
    'subject': dict_of(Shape('a text or a number', lambda value: isinstance(value, str | int))),
    'settings': fields(
        {
            **dict.fromkeys(('generations', 'population', 'parents'), COUNT),
            'mutation': NUMBER,
            'max_params': optional(_INTEGER),
            'seed': _INTEGER,
        }
    ),
    'candidates': list_of(
        fields({'key': TEXT, 'generation': COUNT, 'params': COUNT, 'score': NUMBER})
    ),
}
_TRIES = 10  # as often, for each candidate wanted, a new one is looked for


class Space(Protocol):
    """What is searched; a :class:`~gleam_mm.petl.Supernet` is one."""

    def genes(self) -> Mapping[str, tuple]:
        """The choices, and the options of each from most parameters to least."""

    def express(self, genotype: Mapping[str, Any]) -> dict:
        """The subnet that choices stand for; several may stand for the same one."""

    def count(self, subnet: Mapping) -> int:
        """The number of parameters of a subnet."""


@dataclass(frozen=True)
class Settings(Checked):
    """The settings of a search; the defaults are those of NOAH's and GLoRA's code.

    Attributes:
        generations: How many, the first one of random candidates included.
        population: New candidates a generation, half of them mutants and half crossovers.
        parents: How many of the best candidates so far have offspring.
        mutation: Probability with which a mutant draws a choice anew.
        max_params: The largest number of parameters of a subnet, or None.
        seed: Seed of everything random.

    Raises:
        ArgumentError: A setting is of another type or out of range.
        ValueError: ``mutation`` is no probability above 0.
    """

    generations: Positive = 20
    population: Positive = 50
    parents: Positive = 10
    mutation: float = 0.2
    max_params: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.mutation <= 1:
            raise ValueError(f'mutation={self.mutation}: choose a probability above 0')


@dataclass(frozen=True)
class Candidate:
    """A judged subnet.

    Attributes:
        genotype: Its choices.
        subnet: What they stand for.
        params: Its number of parameters.
        score: How good it is; the higher the better.
        generation: When it came up, counted from 0.
    """

    genotype: Mapping[str, Any]
    subnet: dict
    params: int
    score: float
    generation: int

    @property
    def key(self) -> str:
        """A digest of the subnet."""
        return _key(self.subnet)


@dataclass(frozen=True)
class Generation:
    """What a generation came to.

    Attributes:
        index: Its number, counted from 0.
        candidates: Those that it judged.
        best: The best candidate so far.
        seconds: What a search spends on a generation, by the evaluations of this process; None
            where it has not made any yet.
    """

    index: int
    candidates: Sequence[Candidate]
    best: Candidate
    seconds: float | None


class Evolution:
    """A search.

    Args:
        space: What is searched.
        evaluate: Gives the score of a subnet, such as its accuracy on the validation split.
        settings: The settings.
        scores: Scores of an interrupted search, as :func:`read_scores` gives them.
        save: Called after each evaluation with the candidates judged so far.

    Raises:
        ValueError: Not even the smallest subnet keeps to ``max_params``.
    """

    def __init__(
        self,
        space: Space,
        evaluate: Callable[[dict], float],
        settings: Settings,
        scores: Mapping[str, float] | None = None,
        save: Callable[[Sequence[Candidate]], None] = lambda candidates: None,
    ) -> None:
        self.space = space
        self.evaluate = evaluate
        self.settings = settings
        self.scores = dict(scores or {})
        self.save = save
        self.candidates: dict[str, Candidate] = {}
        self._genes = dict(space.genes())
        self._evaluations, self._seconds = 0, 0.0
        smallest = {name: options[-1] for name, options in self._genes.items()}
        least = space.count(space.express(smallest))
        if not self._fits(least):
            raise ValueError(
                f'max_params={settings.max_params:,}: the smallest subnet has {least:,} parameters'
            )

    @property
    def ranking(self) -> list[Candidate]:
        """Candidates from the best: by score, then fewer parameters, then the earlier one."""
        return sorted(self.candidates.values(), key=lambda c: (-c.score, c.params))

    def generations(self) -> Iterator[Generation]:
        """Runs the search.

        Yields:
            Each generation once it is judged. Fewer than the settings say where the space has no
            further candidates.
        """
        for index in range(self.settings.generations):
            judged = [self._judge(proposed, index) for proposed in self._propose(index)]
            if not judged:
                return
            yield Generation(index, judged, self.ranking[0], self._pace())

    def _judge(self, proposed: tuple[dict, dict], generation: int) -> Candidate:
        genotype, subnet = proposed
        key = _key(subnet)
        known = key in self.scores
        if not known:
            start = time.monotonic()
            self.scores[key] = float(self.evaluate(subnet))
            self._seconds += time.monotonic() - start
            self._evaluations += 1
        candidate = Candidate(
            genotype, subnet, self.space.count(subnet), self.scores[key], generation
        )
        self.candidates[key] = candidate
        if not known:
            self.save(list(self.candidates.values()))
        return candidate

    def _pace(self) -> float | None:
        if not self._evaluations:
            return None
        return self._seconds / self._evaluations * self.settings.population

    def _propose(self, index: int) -> Iterator[tuple[dict, dict]]:
        """Distinct new candidates that keep to the limit, before any of them is judged."""
        wanted, seed = self.settings.population, self.settings.seed
        generator = random.Random(f'{seed} {index}')
        parents = [candidate.genotype for candidate in self.ranking[: self.settings.parents]]
        proposed: dict[str, tuple[dict, dict]] = {}
        makers = [(self._random, wanted)]
        if parents:
            makers = [(self._mutant, wanted // 2), (self._crossover, wanted), *makers]
        for make, upto in makers:
            for _ in range(_TRIES * wanted):
                if len(proposed) >= upto:
                    break
                genotype = self._repaired(make(generator, parents), generator)
                subnet = self.space.express(genotype)
                if (key := _key(subnet)) not in self.candidates:
                    proposed.setdefault(key, (genotype, subnet))
        return iter(proposed.values())

    def _random(self, generator: random.Random, parents: Sequence[Mapping]) -> dict:
        return {name: generator.choice(options) for name, options in self._genes.items()}

    def _mutant(self, generator: random.Random, parents: Sequence[Mapping]) -> dict:
        parent = generator.choice(parents)
        return {
            name: generator.choice(options)
            if generator.random() < self.settings.mutation
            else parent[name]
            for name, options in self._genes.items()
        }

    def _crossover(self, generator: random.Random, parents: Sequence[Mapping]) -> dict:
        one, other = generator.choice(parents), generator.choice(parents)
        return {name: generator.choice((one[name], other[name])) for name in self._genes}

    def _repaired(self, genotype: dict, generator: random.Random) -> dict:
        """Makes choices smaller, at random, until the subnet keeps to the limit.

        Drawing until one fits, as the papers' codes do, would not end under a low limit: the sum of
        hundreds of independent choices hardly varies.
        """
        while not self._fits(self.space.count(self.space.express(genotype))):
            shrinkable = [name for name in genotype if genotype[name] != self._genes[name][-1]]
            name = generator.choice(shrinkable)
            options = self._genes[name]
            genotype[name] = generator.choice(options[options.index(genotype[name]) + 1 :])
        return genotype

    def _fits(self, params: int) -> bool:
        limit = self.settings.max_params
        return limit is None or params <= limit


def write_scores(
    file: str | Path,
    candidates: Sequence[Candidate],
    settings: Settings,
    subject: Mapping[str, Any],
) -> None:
    """Writes a search to a file, all at once.

    Args:
        file: The JSON file.
        candidates: The candidates judged so far.
        settings: The settings of the search.
        subject: What is searched: anything by which a search of something else is recognised.
    """
    document = {
        'subject': dict(subject),
        'settings': asdict(settings),
        'candidates': [
            {
                'key': candidate.key,
                'generation': candidate.generation,
                'params': candidate.params,
                'score': candidate.score,
            }
            for candidate in candidates
        ],
    }
    write_bytes(file, (json.dumps(document, indent=1) + '\n').encode())


def read_scores(
    file: str | Path, settings: Settings, subject: Mapping[str, Any]
) -> dict[str, float]:
    """Reads the scores of an interrupted search.

    The number of generations may have been changed since: more of them continue the search.

    Args:
        file: The JSON file.
        settings: The settings with which it is to go on.
        subject: What is searched.

    Returns:
        Digests of subnets -> scores.

    Raises:
        ValueError: The file is damaged, or from a search with other settings or of something else.
    """
    try:
        document = check(json.loads(Path(file).read_text(encoding='utf-8')), _DOCUMENT)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f'{file}: no file of a search ({error}); search without --resume'
        ) from None
    found = {**document['subject'], **document['settings']}
    scores = {entry['key']: entry['score'] for entry in document['candidates']}
    wanted = {**subject, **asdict(settings)}
    for name, value in wanted.items():
        if name != 'generations' and found.get(name) != value:
            raise ValueError(
                f'{file}: that search has {name}={found.get(name)!r}, not {value!r}; go on with '
                'what it was started with, or give another --work-dir'
            )
    return scores


def _key(subnet: Mapping) -> str:
    return hashlib.sha256(json.dumps(subnet, sort_keys=True).encode()).hexdigest()[:16]
