"""The command in this process."""

import pytest

from gleam_mm_cli import doctor


@pytest.fixture
def run_command(monkeypatch, capsys):
    """Runs ``gleam-mm doctor`` with words, and returns its status and what it prints."""

    def run(*words):
        monkeypatch.setattr('sys.argv', ['gleam-mm doctor', *words])
        code = doctor.main(doctor.parse_args())
        return code, capsys.readouterr().out

    return run
