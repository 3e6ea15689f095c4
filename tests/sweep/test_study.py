"""Trials in an SQLite file: who runs what, what dead workers leave, and what is refused."""

import multiprocessing
import re
import sqlite3
import time

import optuna
import pytest

from gleam_mm.errors import UserError
from gleam_mm.sweep import Sweep, read_results
from gleam_mm.sweep.cells import MOST_LOST
from gleam_mm.sweep.claim import LostTrialError
from gleam_mm.sweep.plan import Variant
from gleam_mm.sweep.study import begin_study, open_study

ME = {'host': 'here', 'pid': 1}
OTHER = {'host': 'there', 'pid': 1}


def sweep(**settings):
    defaults = dict(
        backbone='vit-mini',
        methods=('gleam-t', 'linear'),
        datasets=('vtab-cifar', 'vtab-dtd'),
        seeds=(0, 1),
        grid={'gleam-t': {'alpha': [0.1, 1, 10]}},
        heartbeat=1,
    )
    return Sweep(**{**defaults, **settings})


@pytest.fixture
def storage(tmp_path):
    return str(tmp_path / 'study.db')


@pytest.fixture
def study(storage):
    study = begin_study(storage, 'sweep', sweep())
    study.register()
    return study


def states(study):
    return {cell.job.key: cell.state for cell in study.cells()}


def ready(study, key):
    return next(cell.ready for cell in study.cells() if cell.job.key == key)


def work(storage, worker, start, queue):
    """A worker whose trainings take no time."""
    study = open_study(storage)
    start.wait()
    done = []
    while True:
        study.register()
        if claim := study.claim(worker):
            done.append(claim.job.key)
            claim.complete(50.0 + claim.job.options.get('alpha', 0))
        elif not any(cell.state in ('running', 'waiting') for cell in study.cells()):
            break
    queue.put(done)


def race(storage, processes):
    """What each of several processes has run, of a study that they work on at the same time."""
    fork = multiprocessing.get_context('fork')
    start, queue = fork.Barrier(processes), fork.Queue()
    workers = [
        fork.Process(target=work, args=(storage, {'host': 'x', 'pid': i}, start, queue))
        for i in range(processes)
    ]
    for worker in workers:
        worker.start()
    done = [queue.get(timeout=300) for _ in workers]  # none comes from one that has failed
    for worker in workers:
        worker.join()
    return done


def test_no_training_is_run_twice_by_processes_that_race(study, storage):
    done = [key for own in race(storage, 4) for key in own]
    assert sorted(done) == sorted(states(study))
    assert set(states(study).values()) == {'complete'}


def test_final_trainings_wait_for_the_whole_selection(study):
    claims = [study.claim(ME) for _ in range(10)]
    assert claims.count(None) == 0
    assert study.claim(ME) is None
    by_key = {claim.job.key: claim for claim in claims}
    assert sum(key.startswith('final/linear') for key in by_key) == 4
    for alpha, accuracy in ((0.1, 30.0), (1, 60.0), (10, 60.0)):
        assert not ready(study, 'final/gleam-t_vtab-cifar/seed0')
        by_key[f'select/gleam-t_vtab-cifar/alpha={alpha}/seed0'].complete(accuracy)
    study.register()
    final = [study.claim(ME).job for _ in range(2)]
    assert {job.key for job in final} == {f'final/gleam-t_vtab-cifar/seed{i}' for i in (0, 1)}
    assert all(job.options == {'alpha': 1} for job in final)  # the first of the best
    assert study.claim(ME) is None


def test_one_seed_after_another(storage):
    settings = sweep(seeds=(3, 0, 1))
    study = begin_study(storage, 'sweep', settings)
    order = []
    while not all(cell.state == 'complete' for cell in study.cells()):
        study.register()
        claim = study.claim(ME)
        order.append((claim.job.phase, claim.job.seed))
        claim.complete(50.0)
    assert order == [('select', 3)] * 6 + [('final', seed) for seed in (3, 0, 1) for _ in range(4)]
    cells = [(cell.job.method, cell.job.dataset) for cell in study.cells()]
    assert list(dict.fromkeys(cells)) == settings.pairs()


def test_points_are_chosen_by_the_mean_over_their_seeds(storage):
    """One of them is the best with the first seed, and diverges with the second."""
    accuracies = {(0.1, 0): 60.0, (0.1, 1): 62.0, (1, 0): 80.0, (1, 1): 10.0, (10, 0): 61.0,
                  (10, 1): 61.0}  # fmt: skip
    settings = sweep(methods=['gleam-t'], datasets=['vtab-dtd'], seeds=(0, 1, 2), trial_seeds=2)
    study = begin_study(storage, 'sweep', settings)
    study.register()
    chosen, seeds = [], []
    while claim := study.claim(ME):
        job = claim.job
        if job.phase == 'select':
            seeds.append(job.seed)
            claim.complete(accuracies[job.options['alpha'], job.seed])
        else:
            chosen.append((job.seed, job.options))
            claim.complete(50.0)
        study.register()
    assert seeds == [0, 0, 0, 1, 1, 1]
    assert chosen == [(seed, {'alpha': 0.1}) for seed in (0, 1, 2)]  # of two at 61, the first


def test_without_a_final_phase(storage):
    study = begin_study(storage, 'sweep', sweep(final=False))
    study.register()
    while claim := study.claim(ME):
        claim.complete(50.0)
        study.register()
    assert [(cell.job.method, cell.state) for cell in study.cells()] == [
        ('gleam-t', 'complete')
    ] * 6


def test_a_failure_in_the_selection_chooses_nothing(study):
    for alpha in (0.1, 1, 10):
        claim = study.claim(ME)
        claim.fail('no memory') if alpha == 1 else claim.complete(10.0)
    study.register()
    assert states(study)['final/gleam-t_vtab-cifar/seed0'] == 'waiting'
    assert not study.claim(ME).job.key.startswith('final/gleam-t_vtab-cifar')
    (failed,) = [cell for cell in study.cells() if cell.state == 'failed']
    assert failed.error == 'no memory'
    assert study.retry_failed() == 1
    assert study.claim(ME).job == failed.job


def test_what_a_dead_worker_ran_is_run_again(study, storage):
    lost = study.claim(OTHER)
    study.register()
    assert states(study)[lost.job.key] == 'running'
    time.sleep(4.1)  # the database counts whole seconds
    others = open_study(storage)
    others.register()
    assert states(study)[lost.job.key] == 'waiting'
    again = others.claim(ME)
    assert again.job == lost.job
    for tell in (lost.beat, lambda: lost.complete(1.0), lambda: lost.fail('late')):
        with pytest.raises(LostTrialError):
            tell()
    lost.release()
    again.complete(70.0)
    assert [cell.accuracy for cell in study.cells() if cell.job == lost.job] == [70.0]


def test_signs_of_life_keep_a_trial(study):
    claim = study.claim(ME)
    for _ in range(8):
        time.sleep(0.5)
        claim.beat()
        study.register()
    assert states(study)[claim.job.key] == 'running'


def test_workers_known_to_be_dead_need_not_be_missed(study):
    mine, theirs = study.claim(ME), study.claim(OTHER)
    study.end_trials_of([OTHER])
    assert states(study)[mine.job.key] == 'running'
    assert states(study)[theirs.job.key] == 'waiting'
    study.register()
    assert study.claim(ME).job == theirs.job


def test_a_training_that_kills_its_workers_fails_at_last(study):
    for _ in range(MOST_LOST):
        study.register()
        job = study.claim(ME).job
        study.end_trials_of([ME])
    study.register()
    (failed,) = [cell for cell in study.cells() if cell.state == 'failed']
    assert failed.job == job
    assert f'{MOST_LOST} workers died' in failed.error


def test_a_released_training_waits_again(study):
    claim = study.claim(ME)
    claim.release()
    assert states(study)[claim.job.key] == 'waiting'
    assert study.claim(OTHER).job == claim.job


def test_two_beginnings_at_once_run_nothing_twice(storage, study):
    for cell in study.cells()[:3]:  # as a second process would that looked before this one wrote
        study._add(cell.job)
    claimed = [study.claim(ME).job.key for _ in range(10)]
    assert len(set(claimed)) == 10
    assert study.claim(ME) is None


def test_results(study, storage):
    curve = [{'epoch': 1, 'loss': 0.5, 'lr': 1e-3, 'accuracy': 40.0}]
    study.claim(ME).complete(40.0, curve=curve, parameters=7, seconds=3.0)
    study.claim(ME).fail('RuntimeError: out of memory', log='here')
    first, second, third, *_ = results = read_results(storage)
    assert len(results) == 2 * (3 + 2) + 2 * 2
    assert (first.backbone, first.method, first.dataset) == ('vit-mini', 'gleam-t', 'vtab-cifar')
    assert (first.phase, first.seed, first.options) == ('select', 0, {'alpha': 0.1})
    assert (first.state, first.accuracy, first.parameters, first.seconds) == ('complete', 40, 7, 3)
    assert first.curve == curve
    assert (second.state, second.accuracy, second.log) == ('failed', None, 'here')
    assert second.error == 'RuntimeError: out of memory'
    assert third.state == 'waiting'
    final = next(result for result in results if result.phase == 'final')
    assert (final.state, final.options) == ('waiting', {})


def test_reading_creates_nothing(tmp_path, study, storage):
    before = sorted(tmp_path.iterdir()), (tmp_path / 'study.db').read_bytes()
    read_results(storage)
    assert (sorted(tmp_path.iterdir()), (tmp_path / 'study.db').read_bytes()) == before
    with pytest.raises(UserError, match=r'no such study: neither a file nor .*none/study.db'):
        read_results('none')
    assert sorted(tmp_path.iterdir()) == before[0]


def test_other_settings_are_named(storage, study):
    joined = begin_study(storage, 'sweep', sweep())
    assert joined.sweep == study.sweep
    with pytest.raises(UserError, match=re.escape('seeds is [0, 1] there and [0] here. Give')):
        begin_study(storage, 'sweep', sweep(seeds=(0,)))
    begin_study(storage, 'another', sweep(seeds=(0,)))
    with pytest.raises(UserError, match='give --name; it holds: another, sweep'):
        open_study(storage)
    with pytest.raises(UserError, match="there is no study 'third'; it holds: another, sweep"):
        open_study(storage, 'third')
    assert open_study(storage, 'another').sweep.seeds == (0,)


def test_variants_are_stored_and_older_studies_have_none(storage, study):
    variants = {'gleam-t': Variant('gleam-l', {'sites': ('qkv',)})}
    with pytest.raises(UserError, match=r'variants is .* there and .*method=gleam-l'):
        begin_study(storage, 'sweep', sweep(variants=variants))
    begin_study(storage, 'variants', sweep(variants=variants))
    begin_study(storage, 'variants', sweep(variants=variants))
    stored = open_study(storage, 'variants').sweep
    assert stored.variants == {'gleam-t': Variant('gleam-l', {'sites': ['qkv']})}
    assert stored.variant('linear') == Variant('linear')

    old = study.storage.get_study_user_attrs(study._id)['gleam_sweep']
    for setting in ('variants', 'final'):
        del old[setting]
    study.storage.set_study_user_attr(study._id, 'gleam_sweep', old)
    assert open_study(storage, 'sweep').sweep == study.sweep
    assert begin_study(storage, 'sweep', sweep()).sweep == study.sweep


def test_no_database(tmp_path):
    path = tmp_path / 'study.db'
    path.write_bytes(b'not a database at all, but longer than the header of one' * 10)
    content = path.read_bytes()
    with pytest.raises(UserError, match=r'study\.db: not an SQLite database'):
        begin_study(str(path), 'sweep', sweep())
    assert path.read_bytes() == content
    with pytest.raises(UserError, match='not a file'):
        begin_study(str(tmp_path), 'sweep', sweep())


def test_a_database_of_something_else(storage):
    with sqlite3.connect(storage) as connection:
        connection.execute('CREATE TABLE recipes (name TEXT)')
    with pytest.raises(UserError, match=r'a database of something else \(its tables: recipes\)'):
        begin_study(storage, 'sweep', sweep())
    with pytest.raises(UserError, match='something else'):
        read_results(storage)
    with sqlite3.connect(storage) as connection:
        tables = connection.execute('SELECT name FROM sqlite_master').fetchall()
    assert tables == [('recipes',)]


def test_a_study_of_somebody_else(storage):
    other = optuna.create_study(storage=f'sqlite:///{storage}', study_name='sweep')
    other.optimize(lambda trial: trial.suggest_float('x', 0, 1), n_trials=1)
    with pytest.raises(UserError, match="study 'sweep' is not one of a sweep: give another"):
        begin_study(storage, 'sweep', sweep())
    with pytest.raises(UserError, match="study 'sweep' is not one of a sweep"):
        read_results(storage)


def test_a_locked_file(storage, study, monkeypatch):
    monkeypatch.setattr('gleam_mm.sweep.storage._OPEN_SECONDS', 0.1)
    connection = sqlite3.connect(storage)
    connection.execute('BEGIN EXCLUSIVE')
    with pytest.raises(UserError, match=r'study\.db: another program keeps this database locked'):
        open_study(storage)
    connection.close()
    open_study(storage)


@pytest.mark.parametrize(
    ('url', 'message'),
    [
        ('sqlite://', 'workers cannot share it'),
        ('nonsense://host/database', 'unknown kind of database'),
        ('postgresql://user:secret@127.0.0.1:1/sweeps', 'cannot use this database: connection'),
        ('mysql+nodriver://host/database', 'unknown kind of database'),
    ],
)
def test_urls(url, message):
    with pytest.raises(UserError, match=message) as error:
        begin_study(url, 'sweep', sweep())
    assert 'secret' not in str(error.value)
