"""How the cores of a machine are shared among workers."""

import pytest

from gleam_mm.sweep import supervise


@pytest.mark.parametrize(('told', 'expected'), [(None, [8, 4, 1]), ('', [8, 4, 1]), ('3', [3] * 3)])
def test_workers_share_the_cores_unless_told(
    told: str | None, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, 'cores', lambda: 8)
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    if told is not None:
        monkeypatch.setenv('OMP_NUM_THREADS', told)
    assert [supervise.threads(workers) for workers in (1, 2, 16)] == expected
