"""How trainings become rows: seeds, missing tasks, averages, and which studies are joined."""

import statistics

import pytest
from report.made import VTAB, final, select, whole

from gleam_mm.report import Study, paper
from gleam_mm.report.suites import SUITES, suites_of
from gleam_mm.report.trials import SHOTS, choosing, rows
from gleam_mm.sweep.plan import Variant

SUITE, MINI, FGVC = SUITES


def row(*results, suite=SUITE, **more):
    (found,) = rows([Study('made', list(results), **more)], suite)
    return found


def test_seeds_are_averaged():
    found = row(*(final(seed=seed, accuracy=value) for seed, value in enumerate((70, 71, 75))))
    score = found.score('vtab-cifar')
    assert score.mean == 72
    assert score.deviation == pytest.approx(7**0.5)  # ((-2)^2 + (-1)^2 + 3^2) / (3 - 1)
    assert (score.seeds, score.planned, score.partial) == (3, 3, False)


def test_one_seed_has_no_deviation():
    assert row(final()).score('vtab-cifar').deviation is None


def test_seeds_that_are_not_done_are_told():
    found = row(final(seed=0, accuracy=70), final(seed=1, accuracy=None, state='running'))
    score = found.score('vtab-cifar')
    assert (score.mean, score.seeds, score.planned, score.partial) == (70, 1, 2, True)
    assert row(final(accuracy=None)).score('vtab-cifar') is None


def test_selection_never_counts():
    """Not even where it alone has an accuracy."""
    found = row(final(accuracy=50), select(accuracy=99), select(accuracy=98))
    assert found.score('vtab-cifar').mean == 50
    assert row(final(accuracy=None), select(accuracy=99)).score('vtab-cifar') is None
    assert rows([Study('made', [select()])], SUITE) == []


@pytest.mark.parametrize('suite', [SUITE, MINI])
def test_the_average_is_the_mean_of_group_means(suite):
    study = whole(('lora',), list(suite.tasks), (0, 1))
    (found,) = rows([study], suite)
    by_seed = []
    for seed in (0, 1):
        value = {r.dataset: r.accuracy for r in study.results if r.seed == seed}
        by_seed.append(
            statistics.mean(
                statistics.mean(value[t] for t in group.tasks) for group in suite.groups
            )
        )
    score = found.average(suite)
    assert score.mean == pytest.approx(statistics.mean(by_seed))
    assert score.deviation == pytest.approx(statistics.stdev(by_seed))
    plain = statistics.mean(r.accuracy for r in study.results)
    assert suite is MINI or score.mean != pytest.approx(plain, abs=0.01)  # VTAB's groups differ


def test_an_incomplete_suite_has_no_average():
    found = row(*(final(dataset=task) for task in VTAB[:-1]))
    assert found.average(SUITE) is None
    assert found.done(SUITE) == 18
    natural, _, structured = SUITE.groups
    assert found.group(natural).mean == 50
    assert found.group(structured) is None


def test_an_average_over_unequal_seeds_has_no_deviation():
    results = [final(dataset=task, seed=seed) for task in VTAB for seed in (0, 1)]
    results[0] = final(dataset=VTAB[0], seed=0, accuracy=None)
    score = row(*results).average(SUITE)
    assert (score.mean, score.deviation, score.partial) == (50, None, True)


def test_parameters_are_a_mean_over_tasks_where_tasks_differ():
    assert row(final(parameters=10), final(seed=1, parameters=10)).parameters == 10
    found = row(
        final(dataset='vtab-dtd', parameters=10),
        final(dataset='vtab-cifar', parameters=20),
        final(dataset='vtab-cifar', seed=1, parameters=20),
    )
    assert found.parameters == 15
    assert row(final(accuracy=None)).parameters is None


def test_rows_keep_the_order_of_the_study():
    study = whole(('slora', 'lora', 'gleam-l'), ['vtab-dtd'])
    assert [r.method for r in rows([study], SUITE)] == ['slora', 'lora', 'gleam-l']


def test_studies_of_other_tasks_are_joined():
    studies = [whole(datasets=VTAB[:7], name='a'), whole(datasets=VTAB[7:], name='b')]
    found = rows(studies, SUITE)
    assert [r.name for r in found] == ['LoRA', 'GLEAM-L']
    assert all(r.average(SUITE) for r in found)


def test_no_choice_is_made_between_test_results():
    """The same training in two studies makes two rows, which name their studies."""
    studies = [Study(name, [final(accuracy=value)]) for name, value in (('a', 40), ('b', 60))]
    found = rows(studies, SUITE)
    assert [(r.name, r.score('vtab-cifar').mean) for r in found] == [
        ('LoRA (a)', 40),
        ('LoRA (b)', 60),
    ]


def test_studies_with_other_settings_are_kept_apart():
    studies = [
        Study('long', [final(dataset='vtab-dtd')], {'train_cfg.max_epochs': 100}),
        Study('short', [final(dataset='vtab-cifar')], {'train_cfg.max_epochs': 2}),
    ]
    assert [r.name for r in rows(studies, SUITE)] == ['LoRA (long)', 'LoRA (short)']


def test_shots_are_rows_of_their_own():
    studies = [
        Study('one', [final(dataset='fgvc-cars', accuracy=30)]),
        Study('four', [final(dataset='fgvc-cars', accuracy=50)], {SHOTS: 4}),
        Study('two', [final(dataset='fgvc-cars', accuracy=40)], {SHOTS: 2}),
    ]
    found = rows(studies, FGVC)
    assert [(r.shots, r.name, r.score('fgvc-cars').mean) for r in found] == [
        (1, 'LoRA', 30),
        (2, 'LoRA', 40),
        (4, 'LoRA', 50),
    ]
    as_wholes = [{'train_dataloader': {'dataset': {'shots': n}}} for n in (1, 4, 2)]
    pairs = zip(studies, as_wholes, strict=True)
    studies = [Study(study.name, study.results, options) for study, options in pairs]
    assert [(r.shots, r.name) for r in rows(studies, FGVC)] == [(r.shots, r.name) for r in found]


def test_other_shots_are_not_averaged_where_a_suite_has_no_such_choice():
    studies = [
        Study('one', [final(dataset='birds', accuracy=30)], {SHOTS: 1}),
        Study('many', [final(dataset='birds', seed=1, accuracy=70)], {SHOTS: 16}),
        Study('more', [final(dataset='birds', seed=2, accuracy=80)], {SHOTS: 16}),
    ]
    (suite,) = suites_of(['birds'])
    found = rows(studies, suite)
    assert [(r.name, r.shots, r.score('birds').mean) for r in found] == [
        ('LoRA (one)', None, 30),
        ('LoRA (many)', None, 75),
    ]
    chosen = [final(dataset=d, options={SHOTS: n}) for n, d in ((4, 'birds'), (8, 'bees'))]
    (suite,) = suites_of(['birds', 'bees'])
    assert row(*chosen, suite=suite).average(suite).mean == 50  # as any option of a grid


def test_shots_are_those_of_each_training():
    cars = dict(dataset='fgvc-cars')
    study = Study(
        'made',
        [
            final(accuracy=30, **cars),
            final('lora-4', accuracy=50, **cars),
            final('ssf', accuracy=40, options={SHOTS: 8}, **cars),
        ],
        {SHOTS: 2},
        {'lora-4': Variant('lora', {SHOTS: 4})},
    )
    found = rows([study], FGVC)
    assert [(r.method, r.shots) for r in found] == [('lora', 2), ('lora-4', 4), ('ssf', 8)]
    chosen = choosing(Study('made', [select(options={SHOTS: 8, 'rank': 4}, **cars)]))
    assert [r.shots for r in rows([chosen], FGVC)] == [8]


def test_suites_are_found_by_their_datasets():
    assert suites_of(['vtab-dtd', 'vtab-cifar']) == [SUITE]
    mini, other = suites_of(['birds', 'mini-digits', 'bees'])
    assert mini == MINI
    assert list(other.tasks) == ['birds', 'bees']


def test_suites_name_datasets_that_recipes_know():
    from gleam_mm.config import recipes

    known = recipes.families()['datasets']
    assert all(dataset in known for suite in SUITES for dataset in suite.tasks)
    assert [len(group.tasks) for group in SUITE.groups] == [7, 4, 8]
    assert set(SUITE.ablation) <= set(SUITE.tasks)


@pytest.mark.parametrize('method', ['full', 'linear', 'gleam-t', 'gleam-b', 'gleam-l'])
def test_the_papers_rows_add_up(method):
    """Its averages are means of group means: nothing was misread, or put in another order."""
    published = paper.row('vtab', 'vit-b', method)
    natural, specialized, structured = (
        published.tasks[:7],
        published.tasks[7:11],
        published.tasks[11:],
    )
    mean = statistics.mean(map(statistics.mean, (natural, specialized, structured)))
    assert mean == pytest.approx(published.average, abs=0.11)


def test_the_paper_is_beside_what_it_is_comparable_with():
    assert row(final('gleam-l')).paper(SUITE).average == 76.8
    assert row(final('gleam-l', backbone='timm-vit-b')).paper(SUITE).average == 76.8
    assert row(final('gleam-l', options={'alpha': 10, 'top_k': 1})).paper(SUITE)
    rate = {'optim_wrapper.optimizer.lr': 1e-3, 'model.petl.alpha': 10}  # changes no method
    assert row(final('gleam-l', options=rate)).paper(SUITE)
    assert row(final('gleam-l'), overrides=rate).paper(SUITE)
    assert row(final('gleam-l', options={'model.petl.rank': 2})).paper(SUITE) is None
    assert row(final('gleam-l', backbone='swin-b')).paper(SUITE) is None
    assert row(final('gleam-l', backbone='vit-mini')).paper(SUITE) is None
    assert row(final('gleam-l', options={'num_experts': 2})).paper(SUITE) is None
    assert row(final('gleam-l'), overrides={'model.petl.moe': False}).paper(SUITE) is None
    for changed in ({'model.petl': {'rank': 2}}, {'model': {'petl': {'rank': 2}}}):
        assert row(final('gleam-l'), overrides=changed).paper(SUITE) is None
    assert row(final('gleam-l', options={'model.petl': {'rank': 2}})).paper(SUITE) is None
    assert row(final('gleam-l'), overrides={'model.petl': {'alpha': 10}}).paper(SUITE)
    assert row(final('gleam-l'), overrides={'model': {'head': {'init_cfg': None}}}).paper(SUITE)
    assert row(final('gleam-l', dataset='mini-digits'), suite=MINI).paper(MINI) is None
