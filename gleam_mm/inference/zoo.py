"""The zoo: trained adapters that ship with the package, and what is known of each.

They are in ``.mim/zoo``, which is a link to ``zoo`` in a checkout: for each a ``.safetensors`` file
and the config of its training, and ``index.json``, which :func:`index_of` makes of them.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gleam_mm.checkpoint import CheckpointError, read_adapter
from gleam_mm.config import recipes
from gleam_mm.errors import UserError
from gleam_mm.fileio import write_bytes
from gleam_mm.inference import hub
from gleam_mm.inference.predictor import Predictor
from gleam_mm.messages import hint_at
from gleam_mm.shapes import COUNT, MAPPING, SHA256, Shape, check, list_of, matching
from gleam_mm.shell import command

FOLDER = Path(__file__).parents[1] / '.mim' / 'zoo'
INDEX = 'index.json'
VERSION = 1
"""The version of the index that is written and read."""

HEADLINE = 'accuracy/top1'
"""The metric that lists show."""


@dataclass(frozen=True)
class Entry:
    """What the index says of an adapter.

    Attributes:
        name: Its name, and that of its files.
        backbone: The backbone's name in recipes.
        method: The method's name in recipes.
        dataset: The dataset's name in recipes.
        parameters: Numbers that the method has trained, head excluded.
        head: Numbers of the head.
        epochs: How long it was trained.
        metrics: Split, ``val`` and ``test`` -> metric -> value.
        backbone_fingerprint: SHA-256 of the frozen weights that it belongs to.
        gleam_mm: The version that it was trained with.
        size: Bytes of the adapter file.
        sha256: Of the adapter file.
        config_sha256: Of the config file.
    """

    name: str
    backbone: str
    method: str
    dataset: str
    parameters: int
    head: int
    epochs: int
    metrics: dict[str, dict[str, float]]
    backbone_fingerprint: str
    gleam_mm: str
    size: int
    sha256: str
    config_sha256: str

    @property
    def adapter(self) -> str:
        """The name of the adapter's file."""
        return f'{self.name}.safetensors'

    @property
    def config(self) -> str:
        """The name of the config's file."""
        return f'{self.name}.py'

    def headline(self, split: str) -> float:
        """The accuracy on a split, in %."""
        return self.metrics[split][HEADLINE]


def entries(folder: Path = FOLDER) -> dict[str, Entry]:
    """The adapters of the zoo by their names.

    Args:
        folder: Where the index and the files are.

    Raises:
        CheckpointError: The index is missing or not of the form that it is written in.
    """
    path = folder / INDEX
    if not path.is_file():
        raise CheckpointError(f'{path} is missing: install GLEAM-MM again')
    try:
        return _read(json.loads(path.read_bytes()))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f'{path}: {error}') from error


def entry(name: str, folder: Path = FOLDER) -> Entry:
    """The adapter of a name.

    Raises:
        UserError: There is none; the message has the nearest names.
    """
    known = entries(folder)
    if name not in known:
        raise UserError(
            f'{name!r} is not in the zoo{hint_at(name, known)}; '
            f'{command("zoo", "list")!r} lists what is'
        )
    return known[name]


def path(name: str, folder: Path = FOLDER) -> Path:
    """The file of an adapter, for :class:`gleam_mm.Predictor`, an adapter bank and the tools.

    Raises:
        UserError: There is no adapter of that name.
        CheckpointError: The file is missing, or not the one that the index was made of.
    """
    found = entry(name, folder)
    _bytes_of(folder / found.adapter, found.sha256)
    return folder / found.adapter


def get(name: str, out: str | Path, folder: Path = FOLDER) -> list[Path]:
    """Copies an adapter, its config and its card into a folder, where they need nothing else.

    Args:
        name: The adapter.
        out: The folder, made if it does not exist; older files of the same names are replaced.
        folder: Where the zoo is.

    Returns:
        The three files.

    Raises:
        UserError: There is no adapter of that name.
        CheckpointError: A file is missing, or not the one that the index was made of.
    """
    found = entry(name, folder)
    adapter = _bytes_of(folder / found.adapter, found.sha256)
    config = _bytes_of(folder / found.config, found.config_sha256)
    card = hub.card(folder / found.adapter, name, repr(found.adapter))
    contents = {found.adapter: adapter, found.config: config, f'{name}.md': card.encode()}
    for file, content in contents.items():
        write_bytes(Path(out) / file, content)
    return [Path(out) / file for file in contents]


def verify(name: str, folder: Path = FOLDER) -> str:
    """Checks that an adapter is what the index says, and loads onto the weights that are here.

    Args:
        name: The adapter.
        folder: Where the zoo is.

    Returns:
        What was checked, in a few words.

    Raises:
        UserError: There is no adapter of that name.
        CheckpointError: A file is missing or damaged, the index says something else than it does,
            or the frozen weights are others.
    """
    found = entry(name, folder)
    _bytes_of(folder / found.config, found.config_sha256)
    _bytes_of(folder / found.adapter, found.sha256)
    if (says := _entry_of(folder / found.adapter)) != found:
        ours, theirs = asdict(found), asdict(says)
        differing = ', '.join(key for key in ours if ours[key] != theirs[key])
        raise CheckpointError(f'{folder / INDEX}: {name}: not what the files say: {differing}')
    Predictor(folder / found.adapter, device='cpu')
    return (
        f'whole by its SHA-256, and loads onto the frozen weights {found.backbone_fingerprint[:12]}'
    )


def scan(folder: Path = FOLDER) -> list[Entry]:
    """What the adapters and configs in a folder say, without its index.

    Raises:
        CheckpointError: An adapter is damaged, or lacks its config or its metrics.
    """
    return [_entry_of(file) for file in sorted(folder.glob('*.safetensors'))]


def index_of(found: Iterable[Entry]) -> str:
    """The text of an index."""
    return json.dumps({'schema': VERSION, 'adapters': list(map(asdict, found))}, indent=2) + '\n'


def _entry_of(file: Path) -> Entry:
    """What the files of an adapter say."""
    tensors, metadata = read_adapter(file)
    config = file.with_suffix('.py')
    if not config.is_file():
        raise CheckpointError(f'{file}: its config, {config.name}, is not beside it')
    recipe = recipes.parse(file.stem)
    metrics = metadata.get('metrics') or {}
    lacking = [s for s in ('val', 'test') if HEADLINE not in metrics.get(s, {})]
    if lacking:
        raise CheckpointError(f'{file}: has no {HEADLINE} on {" and ".join(lacking)}')
    numbers = sum(t.numel() for t in tensors.values())
    head = sum(t.numel() for name, t in tensors.items() if name.startswith('head.'))
    data = file.read_bytes()
    return Entry(
        name=file.stem,
        **recipe._asdict(),
        parameters=numbers - head,
        head=head,
        epochs=metadata['epoch'],
        metrics={
            split: {
                name: round(float(value), 4)
                for name, value in metrics[split].items()
                if isinstance(value, int | float)
            }
            for split in ('val', 'test')
        },
        backbone_fingerprint=metadata['backbone_fingerprint'],
        gleam_mm=metadata['versions']['gleam_mm'],
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        config_sha256=hashlib.sha256(config.read_bytes()).hexdigest(),
    )


def _bytes_of(file: Path, sha256: str) -> bytes:
    """The content of a file whose SHA-256 is known.

    Raises:
        CheckpointError: It is missing, or another one.
    """
    if not file.is_file():
        raise CheckpointError(f'{file} is missing: install GLEAM-MM again')
    data = file.read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise CheckpointError(
            f'{file}: damaged or replaced: its SHA-256 is not that of {INDEX}. Install GLEAM-MM '
            'again'
        )
    return data


def _is_metrics(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and value.keys() == {'val', 'test'}
        and all(isinstance(found, Mapping) and HEADLINE in found for found in value.values())
        and all(type(number) is float for found in value.values() for number in found.values())
    )


_NAME = matching('a name', r'[a-z0-9]+([._-][a-z0-9]+)*')
_PARAMETERS = Shape('a number of parameters', COUNT.fits)
_INDEX = {
    'schema': Shape(f'{VERSION}, which this release reads', lambda value: value == VERSION),
    'adapters': list_of(MAPPING),
}
_FIELDS = {
    'name': _NAME,
    'backbone': _NAME,
    'method': _NAME,
    'dataset': _NAME,
    'parameters': _PARAMETERS,
    'head': _PARAMETERS,
    'epochs': Shape('a number of epochs', COUNT.fits),
    'metrics': Shape(f'val and test, each with {HEADLINE} and other metrics', _is_metrics),
    'backbone_fingerprint': SHA256,
    'gleam_mm': matching('a version', r'[\w.+-]+'),
    'size': Shape('a number of bytes', COUNT.fits),
    'sha256': SHA256,
    'config_sha256': SHA256,
}
"""What the index says of an adapter: key -> the shape of its value. There are no others."""


def _read(document: Any) -> dict[str, Entry]:
    """The entries of an index.

    Raises:
        ValueError: It has another form; the message names the key.
    """
    found: dict[str, Entry] = {}
    for number, told in enumerate(check(document, _INDEX)['adapters']):
        try:
            check(told, _FIELDS)
        except ValueError as error:
            raise ValueError(f'adapters.{number}: {error}') from None
        if told['name'] in found:
            raise ValueError(f'adapters.{number}.name: {told["name"]} is there twice')
        found[told['name']] = Entry(**told)
    return found
