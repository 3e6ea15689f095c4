"""The image of a server is built from all that the wheel has."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / 'docker'


def test_the_wheel_of_the_image_lacks_nothing():
    lines = (DOCKER / 'Dockerfile').read_text('utf-8').splitlines()
    words = [line.split() for line in lines if line.startswith('COPY ')]
    copied = {word for _, *sources, _ in words for word in sources if not word.startswith('-')}
    ignored = (DOCKER / 'Dockerfile.dockerignore').read_text('utf-8').splitlines()
    let_in = {line.removeprefix('!') for line in ignored if line.startswith('!')}
    links = [link for link in (ROOT / 'gleam_mm' / '.mim').iterdir() if link.is_symlink()]
    linked = {link.resolve().relative_to(ROOT).as_posix() for link in links}
    assert 'docs/methods.md' in linked
    assert linked <= copied
    assert linked <= let_in
