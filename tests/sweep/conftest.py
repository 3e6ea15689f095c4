import pytest
from sweep_place import make_place


@pytest.fixture(scope='session')
def _place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp('place'))


@pytest.fixture
def place(_place, monkeypatch):
    """The current directory: a folder with data and a tiny backbone."""
    monkeypatch.chdir(_place)
    monkeypatch.delenv('GLEAM_DATA', raising=False)
    return _place
