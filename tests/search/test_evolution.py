"""The evolutionary search on toy spaces whose best member is known."""

import itertools
import json
import random

import pytest

from gleam_mm.search.evolution import Evolution, Settings, read_scores, write_scores

SIZES = (8, 4, 1, 0)


class Blocks:
    """Some blocks of one of four sizes each; a size costs as many parameters."""

    def __init__(self, number=10):
        self.number = number

    def genes(self):
        return {f'block{index}': SIZES for index in range(self.number)}

    def express(self, genotype):
        return {'sizes': [genotype[f'block{index}'] for index in range(self.number)]}

    def count(self, subnet):
        return sum(subnet['sizes'])


PLANTED = [8, 0, 4, 1, 1, 8, 0, 0, 4, 8]


def likeness(subnet):
    """The share of the blocks that have the planted sizes."""
    return sum(a == b for a, b in zip(subnet['sizes'], PLANTED, strict=True)) / len(PLANTED)


def search(evaluate=likeness, space=None, scores=None, save=lambda candidates: None, **settings):
    settings = Settings(**{'generations': 25, 'population': 20, 'parents': 5, **settings})
    return Evolution(space or Blocks(), evaluate, settings, scores, save)


def test_finds_what_is_planted():
    evolution = search()
    generations = list(evolution.generations())
    best = generations[-1].best
    assert best.subnet == {'sizes': PLANTED}  # one of a million, after at most 500 evaluations
    assert best.score == 1
    assert best.params == sum(PLANTED)
    scores = [generation.best.score for generation in generations]
    assert scores == sorted(scores)
    # Chance alone, with as many evaluations, does not find it.
    draw = random.Random(0)
    assert max(likeness({'sizes': draw.choices(SIZES, k=10)}) for _ in range(500)) < 1


def test_judges_every_candidate_once():
    seen = []

    def evaluate(subnet):
        seen.append(tuple(subnet['sizes']))
        return likeness(subnet)

    generations = list(search(evaluate, generations=6).generations())
    assert len(seen) == len(set(seen)) == 6 * 20
    assert [len(generation.candidates) for generation in generations] == [20] * 6


@pytest.mark.parametrize('limit', [0, 3, 20, 34])
def test_keeps_to_the_limit(limit):
    evolution = search(max_params=limit, generations=8)
    for generation in evolution.generations():
        assert all(sum(c.subnet['sizes']) <= limit for c in generation.candidates)
    if limit == 34:
        assert evolution.ranking[0].score > 0.8


def test_a_limit_below_the_smallest_is_refused():
    class Never(Blocks):
        def count(self, subnet):
            return 100 + super().count(subnet)

    with pytest.raises(ValueError, match=r'max_params=99: the smallest subnet has 100 parameters'):
        search(space=Never(), max_params=99)


def test_the_seed_decides():
    def run(seed):
        random.random()  # nothing global does
        evolution = search(seed=seed, generations=4)
        list(evolution.generations())
        return list(evolution.candidates.values())

    assert run(1) == run(1)
    assert run(1) != run(2)


class Killed(Exception):
    pass


@pytest.mark.parametrize('evaluations', [1, 7, 8, 9, 23, 31])
def test_resumes_as_if_nothing_had_happened(evaluations, tmp_path):
    file = tmp_path / 'search.json'
    settings = Settings(generations=4, population=8, parents=3)

    def run(scores=None, most=None):
        calls = []

        def evaluate(subnet):
            if most is not None and len(calls) == most:
                raise Killed
            calls.append(subnet)
            return likeness(subnet) / 3  # not exact in binary

        def save(candidates):
            write_scores(file, candidates, settings, {'space': 'blocks'})

        evolution = Evolution(Blocks(), evaluate, settings, scores, save)
        bests = [generation.best for generation in evolution.generations()]
        return bests, list(evolution.candidates.values()), len(calls), file.read_bytes()

    bests, candidates, calls, content = run()
    assert calls == 32
    with pytest.raises(Killed):
        run(most=evaluations)
    scores = read_scores(file, settings, {'space': 'blocks'})
    assert len(scores) == evaluations
    assert run(scores) == (bests, candidates, 32 - evaluations, content)


def test_more_generations_continue_a_finished_search(tmp_path):
    def run(generations, scores=None):
        evolution = search(generations=generations, scores=scores)
        list(evolution.generations())
        return evolution

    short, long = run(3), run(5)
    file = tmp_path / 'search.json'
    write_scores(file, list(short.candidates.values()), short.settings, {})
    scores = read_scores(file, long.settings, {})
    assert run(5, scores).candidates == long.candidates


@pytest.mark.parametrize(
    ('settings', 'subject', 'message'),
    [
        (dict(seed=1), {}, 'has seed=0, not 1; go on with what it was started with'),
        (dict(max_params=5), {}, 'has max_params=None, not 5'),
        ({}, {'checkpoint': 'b'}, "has checkpoint='a', not 'b'"),
    ],
)
def test_another_search_is_not_resumed(settings, subject, message, tmp_path):
    file = tmp_path / 'search.json'
    write_scores(file, [], Settings(), {'checkpoint': 'a'})
    with pytest.raises(ValueError, match=message):
        read_scores(file, Settings(**settings), {'checkpoint': 'a', **subject})
    file.write_text('{"settings"')
    with pytest.raises(ValueError, match=r'search\.json: no file of a search'):
        read_scores(file, Settings(), {})


def test_ends_where_a_small_space_does():
    space = Blocks(2)
    evolution = search(lambda subnet: subnet['sizes'][0], space, generations=50)
    generations = list(evolution.generations())
    assert len(generations) < 50
    found = {tuple(candidate.subnet['sizes']) for candidate in evolution.candidates.values()}
    assert found == set(itertools.product(SIZES, SIZES))
    # Of equally good ones, the smallest is the best.
    assert generations[-1].best.subnet == {'sizes': [8, 0]}


@pytest.mark.parametrize('setting', ['generations', 'population', 'parents', 'mutation'])
def test_settings_out_of_range_are_named(setting):
    with pytest.raises(ValueError, match=f'{setting}=0'):
        Settings(**{setting: 0})


@pytest.mark.parametrize(
    'change',
    [
        lambda document: [],
        lambda document: {**document, 'run': 'x'},
        lambda document: {**document, 'subject': {'method': ['GLoRA']}},
        lambda document: {**document, 'settings': {**document['settings'], 'seed': '0'}},
        lambda document: {**document, 'settings': {}},
        lambda document: {**document, 'candidates': {}},
        lambda document: {**document, 'candidates': [{'key': 'a', 'score': 1.0}]},
        lambda document: {
            **document,
            'candidates': [{'key': 'a', 'generation': 0, 'params': 1, 'score': float('nan')}],
        },
        lambda document: {
            **document,
            'candidates': [{'key': 'a', 'generation': 0, 'params': 1, 'score': 'high'}],
        },
    ],
)
def test_files_of_another_shape_are_told_in_a_line(change, tmp_path):
    file = tmp_path / 'search.json'
    write_scores(file, [], Settings(), {'method': 'GLoRA'})
    read_scores(file, Settings(), {'method': 'GLoRA'})
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    with pytest.raises(ValueError, match=r'search\.json: no file of a search \(') as told:
        read_scores(file, Settings(), {'method': 'GLoRA'})
    assert '\n' not in str(told.value)


def test_a_file_nested_without_end(tmp_path):
    (tmp_path / 'search.json').write_text('[' * 100_000)
    with pytest.raises(ValueError, match='no file of a search'):
        read_scores(tmp_path / 'search.json', Settings(), {})
