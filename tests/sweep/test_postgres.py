"""The same on PostgreSQL: a server of the test's own, on a Unix socket in a temporary folder."""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from test_study import ME, OTHER, race, states, sweep

from gleam_mm.errors import UserError
from gleam_mm.sweep import read_results
from gleam_mm.sweep.study import begin_study, open_study


def _programs():
    """The folder of initdb and pg_ctl, which Debian does not put on the PATH."""
    if found := shutil.which('pg_ctl'):
        return Path(found).parent
    found = sorted(Path('/usr/lib/postgresql').glob('*/bin/pg_ctl'))
    return found[-1].parent if found else None


@pytest.fixture(scope='module')
def server():
    """The URL of an empty database."""
    pytest.importorskip('psycopg')
    programs = _programs()
    if programs is None:
        pytest.skip('no PostgreSQL server here: apt-get install postgresql')
    # Not below pytest's folder: only root may enter it, and a socket's path must be short.
    folder = Path(tempfile.mkdtemp(prefix='pg-'))
    as_user = {}
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        try:
            user = pwd.getpwnam('postgres')
        except KeyError:
            pytest.skip('PostgreSQL refuses to run as root, and there is no user postgres')
        os.chown(folder, user.pw_uid, user.pw_gid)
        as_user = dict(user=user.pw_uid, group=user.pw_gid, extra_groups=[])

    def run(program, *arguments):
        return subprocess.run(
            [programs / program, '-D', folder / 'data', *arguments],
            **as_user,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if program == 'initdb' else subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            text=True,
        )

    try:
        done = run('initdb', '-U', 'sweeps', '-A', 'trust', '--no-sync', '-E', 'UTF8')
        if done.returncode:
            pytest.skip(f'PostgreSQL cannot be set up here: {done.stdout[-300:]}')
        options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
        log = folder / 'server.log'
        if run('pg_ctl', '-w', '-l', log, '-o', options, 'start').returncode:
            pytest.skip(f'PostgreSQL cannot be started here: {log.read_text()[-300:]}')
        try:
            yield f'postgresql://sweeps@/postgres?host={folder}'
        finally:
            run('pg_ctl', '-m', 'immediate', '-w', 'stop')
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_no_training_is_run_twice_by_processes_that_race(server):
    study = begin_study(server, 'race', sweep())
    done = [key for own in race(server, 4) for key in own]
    assert sorted(done) == sorted(states(study))
    assert set(states(study).values()) == {'complete'}


def test_dead_workers_released_trainings_and_results(server):
    study = begin_study(server, 'dead', sweep())
    study.register()
    lost, released, failed = (study.claim(worker) for worker in (OTHER, ME, ME))
    released.release()
    failed.fail('no memory')
    time.sleep(3.5)
    study = open_study(server, 'dead')
    study.register()
    again = [study.claim(ME) for _ in range(2)]
    assert {claim.job.key for claim in again} == {lost.job.key, released.job.key}
    for claim in again:
        claim.complete(50.0, seconds=1.0)
    results = read_results(server, 'dead')
    assert [result.state for result in results[:3]] == ['complete', 'complete', 'failed']


def test_settings_and_names(server):
    begin_study(server, 'one', sweep())
    begin_study(server, 'two', sweep(seeds=(0,)))
    with pytest.raises(UserError, match='seeds is'):
        begin_study(server, 'two', sweep())
    with pytest.raises(UserError, match=r'give --name; it holds: .*one, '):
        open_study(server)
    with pytest.raises(UserError, match=r'cannot use this database: .*"nowhere" does not exist'):
        open_study(server.replace('/postgres?', '/nowhere?'))
