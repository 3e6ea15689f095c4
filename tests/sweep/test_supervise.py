"""How the cores of a machine are shared among workers, and what is told when these end."""

import shutil
from pathlib import Path

import pytest

from gleam_mm.errors import UserError
from gleam_mm.sweep import Sweep, supervise
from gleam_mm.sweep.study import begin_study


@pytest.mark.parametrize(('told', 'expected'), [(None, [8, 4, 1]), ('', [8, 4, 1]), ('3', [3] * 3)])
def test_workers_share_the_cores_unless_told(
    told: str | None, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, 'cores', lambda: 8)
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    if told is not None:
        monkeypatch.setenv('OMP_NUM_THREADS', told)
    assert [supervise.threads(workers) for workers in (1, 2, 16)] == expected


def test_workers_that_somebody_has_ended_leave_trainings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is told to stop (by SIGTERM) ends with status 0."""
    monkeypatch.setattr('sys.executable', shutil.which('true'))
    sweep = Sweep('vit-mini', ('lora',), ('mini-digits',), seeds=(0, 1))
    storage = str(tmp_path / 'study.db')
    study = begin_study(storage, 'left', sweep)
    with pytest.raises(UserError, match=r'workers have ended too early, 2 trainings are left'):
        supervise.run(study, storage, tmp_path, 1)
