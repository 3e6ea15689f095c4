"""A server of two tasks of one kind and one of another, in this process."""

import pytest
from adapters import build, pictures, write
from running import CLASSES, TOKEN, png
from starlette.testclient import TestClient

from gleam_mm.serve.app import create_app
from gleam_mm.serve.settings import Settings

GLEAM = dict(type='GLEAM', rank=4, alpha=0.5)
METHODS = {'pets': GLEAM, 'birds': GLEAM, 'moles': dict(type='VPT', num_prompts=3)}


@pytest.fixture(scope='session')
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp('adapters')
    return {
        name: write(
            build(METHODS[name], classes=len(classes), seed=seed),
            folder / f'{name}.safetensors',
            classes,
        )
        for seed, (name, classes) in enumerate(CLASSES.items())
    }


@pytest.fixture
def settings(files, tmp_path):
    return Settings(
        adapters=files, folder=tmp_path / 'added', device='cpu', max_bytes=20_000, max_pixels=5000
    )


@pytest.fixture
def bank(settings):
    return settings.build_bank()


@pytest.fixture
def client(bank, settings):
    with TestClient(create_app(bank, settings, TOKEN)) as client:
        yield client


@pytest.fixture(scope='session')
def files_of_pictures():
    """Pictures as the bytes of PNG files."""
    return [png(picture) for picture in pictures(6)]
