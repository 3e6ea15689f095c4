"""What a server is told by a YAML file."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from gleam_mm.bank import AdapterBank, check_name
from gleam_mm.checkpoint import SCHEME, require_file
from gleam_mm.fileio import remove_unfinished
from gleam_mm.shapes import COUNT, MAPPING, NUMBER, POSITIVE, TEXT, Shape, check, dict_of, optional

_SHAPES = {
    'backbone': optional(Shape('a name or a mapping', lambda v: TEXT.fits(v) or MAPPING.fits(v))),
    'weights': optional(TEXT),
    'device': optional(TEXT),
    'adapters': dict_of(TEXT),
    'folder': optional(TEXT),
    'device_bytes': optional(COUNT),
    'host_bytes': optional(COUNT),
    'host': TEXT,
    'port': Shape('a number from 0 to 65535', lambda v: COUNT.fits(v) and v < 2**16),
    'max_bytes': POSITIVE,
    'max_pixels': POSITIVE,
    'max_adapter_bytes': POSITIVE,
    'max_batch': POSITIVE,
    'max_wait_ms': Shape('a number, at least 0', lambda v: NUMBER.fits(v) and v >= 0),
    'max_waiting': POSITIVE,
}


@dataclass(frozen=True)
class Settings:
    """What a server is and allows; each is a key of the YAML file.

    Attributes:
        backbone: As of :class:`~gleam_mm.bank.AdapterBank`.
        weights: The same; a path beside the YAML file.
        device: The same.
        adapters: Adapter files by their task, beside the YAML file.
        folder: A folder whose ``.safetensors`` files are tasks as well, each by its name, and to
            which tasks are added while the server runs. Without it none can be.
        device_bytes: As of :class:`~gleam_mm.bank.AdapterBank`.
        host_bytes: The same.
        host: The address to listen at.
        port: The port.
        max_bytes: The largest picture.
        max_pixels: The most pixels of one.
        max_adapter_bytes: The largest adapter that may be added.
        max_batch: The most pictures of a pass.
        max_wait_ms: How long a picture waits for others to share its pass, in milliseconds.
        max_waiting: How many pictures wait at most; others are told to come back.
    """

    backbone: str | dict[str, Any] | None = None
    weights: Path | str | None = None
    device: str | None = None
    adapters: Mapping[str, Path | str] = field(default_factory=dict)
    folder: Path | None = None
    device_bytes: int | None = None
    host_bytes: int | None = None
    host: str = '127.0.0.1'
    port: int = 8000
    max_bytes: int = 10 * 2**20
    max_pixels: int = 25_000_000
    max_adapter_bytes: int = 64 * 2**20
    max_batch: int = 32
    max_wait_ms: float = 5
    max_waiting: int = 256

    def build_bank(self) -> AdapterBank:
        """The bank with all its tasks; what a killed server had begun to add is removed.

        Raises:
            FileNotFoundError: A file is not there.
            CheckpointError: An adapter does not belong to the backbone, or is damaged.
            ValueError: A task has no fitting name, or two have the same.
        """
        bank = AdapterBank(
            self.backbone,
            self.adapters,
            self.weights,
            self.device,
            self.device_bytes,
            self.host_bytes,
        )
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_unfinished(self.folder)
            for path in sorted(self.folder.glob('[!.]*.safetensors')):  # a Mac adds hidden ones
                if path.stem in self.adapters:
                    raise ValueError(
                        f'task {path.stem!r} is there twice: adapters.{path.stem} is '
                        f'{self.adapters[path.stem]}, and the folder has {path}: rename or remove '
                        'one of them'
                    )
                bank.add(path.stem, path)
        return bank

    def with_flags(self, **flags: Any) -> 'Settings':
        """The settings under those flags of a command line that were given."""
        return replace(self, **{key: value for key, value in flags.items() if value is not None})


def read(path: str | Path) -> Settings:
    """Reads a YAML file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no YAML, or a key is unknown or has a value of another kind, or there is
            neither an adapter nor a folder of them. The message names file and key.
    """
    path = Path(path)
    require_file(path, 'a YAML file as in docs/bank.md')
    try:
        found = yaml.safe_load(path.read_text('utf-8'))
        told = check({} if found is None else found, _SHAPES, least=())
        for name in told.get('adapters', {}):
            check_name(name)
        if not told.get('adapters') and told.get('folder') is None:
            raise ValueError('there is nothing to serve: name adapters, or a folder for them')
    except yaml.YAMLError as error:
        raise ValueError(f'{path}: no YAML: {" ".join(str(error).split())}') from error
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error
    beside = path.parent
    told['adapters'] = {k: _beside(beside, v) for k, v in told.get('adapters', {}).items()}
    for key in ('weights', 'folder'):
        if told.get(key) is not None:
            told[key] = _beside(beside, told[key])
    return Settings(**told)


def _beside(folder: Path, name: str) -> Path | str:
    return name if name.startswith(SCHEME) else folder / Path(name).expanduser()
