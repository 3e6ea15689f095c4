"""Reads the TFRecord files that TensorFlow Datasets wrote, without TensorFlow.

A TFRecord file is a sequence of records: length (uint64), its checksum (uint32), the bytes, and
their checksum (uint32), all little-endian. A record is a serialised ``tf.train.Example``: a map of
feature names to lists of byte strings, floats or integers. The checksums are not verified; a
damaged image shows when it is decoded, and a truncated file when it ends early.
"""

import json
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

__all__ = ['Slice', 'TFDSCopy', 'parse_example']

# tf.data reads so many files at a time, and so many records of each in turn.
_CYCLE, _BLOCK = 16, 16


class Slice(NamedTuple):
    """Records ``start`` to ``stop`` (excluded) of a split."""

    split: str
    start: int
    stop: int


class _Run(NamedTuple):
    """Consecutive records of one file; ``first`` is the number of ``start`` in its split."""

    file: Path
    split: str
    start: int
    stop: int
    first: int


class TFDSCopy:
    """A dataset as TensorFlow Datasets prepared it: a folder of one version.

    Args:
        folder: The folder with ``dataset_info.json`` and the TFRecord files.

    Raises:
        ValueError: The folder holds no such copy, or one in another file format.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        file = folder / 'dataset_info.json'
        try:
            info = json.loads(file.read_text(encoding='utf-8'))
            self.name, self.version = info['name'], info['version']
            self._format = info.get('fileFormat', 'tfrecord')
            self._cycle = 1 if info.get('disableShuffling') else _CYCLE
            self._shards = {
                split['name']: [int(length) for length in split['shardLengths']]
                for split in info['splits']
            }
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f'{file}: not the description of a TensorFlow Datasets copy ({error})'
            ) from error
        if self._format != 'tfrecord':
            raise ValueError(
                f'{file}: the copy is in {self._format} files, only tfrecord can be read; prepare '
                "it with builder.download_and_prepare(file_format='tfrecord')"
            )

    def size(self, split: str) -> int:
        """Number of records of a split.

        Raises:
            ValueError: The copy has no such split.
        """
        if split not in self._shards:
            raise ValueError(
                f'{self.folder}: has no split {split!r}, only {", ".join(self._shards)}'
            )
        return sum(self._shards[split])

    def read(self, slices: Sequence[Slice]) -> Iterator[tuple[str, dict]]:
        """Reads slices as one dataset, in the order in which ``tf.data`` reads them unshuffled.

        Yields:
            A record's identifier, such as ``train[42]``, and its features.

        Raises:
            OSError: A file is missing or ends early.
        """
        runs = [run for part in slices for run in self._runs(part)]
        for run, number, record in _interleave(runs, self._cycle):
            yield f'{run.split}[{run.first + number}]', parse_example(record)

    def _runs(self, part: Slice) -> Iterator[_Run]:
        lengths, begin = self._shards[part.split], 0
        for index, length in enumerate(lengths):
            start, stop = max(part.start, begin), min(part.stop, begin + length)
            if start < stop:
                shard = f'{index:05}-of-{len(lengths):05}'
                file = self.folder / f'{self.name}-{part.split}.tfrecord-{shard}'
                yield _Run(file, part.split, start - begin, stop - begin, start)
            begin += length


def _interleave(runs: Sequence[_Run], cycle: int) -> Iterator[tuple[_Run, int, bytes]]:
    """Blocks of records of some files in turn; a file that ends makes room for the next one."""
    slots: list[tuple[_Run, Iterator[tuple[int, bytes]]] | None]
    slots = [(run, _records(run)) for run in runs[:cycle]]
    waiting = iter(runs[cycle:])
    while any(slots):
        for index, slot in enumerate(slots):
            if slot is None:
                continue
            run, records = slot
            for _ in range(_BLOCK):
                entry = next(records, None)
                if entry is None:
                    upcoming = next(waiting, None)
                    slots[index] = (upcoming, _records(upcoming)) if upcoming else None
                    break
                yield run, *entry


def _records(run: _Run) -> Iterator[tuple[int, bytes]]:
    """The records of a run, numbered from 0."""
    if not run.file.is_file():
        raise FileNotFoundError(f'{run.file} does not exist: the copy is incomplete')
    size = run.file.stat().st_size
    with run.file.open('rb') as file:
        for index in range(run.stop):
            header = file.read(12)
            length = struct.unpack('<Q', header[:8])[0] if len(header) == 12 else None
            if length is None or file.tell() + length + 4 > size:
                raise OSError(f'{run.file}: ends in record {index}: the copy is incomplete')
            if index < run.start:
                file.seek(length + 4, 1)
            else:
                yield index - run.start, file.read(length)
                file.seek(4, 1)


def parse_example(data: bytes) -> dict[str, list[bytes] | np.ndarray]:
    """Parses a serialised ``tf.train.Example``.

    Returns:
        Feature name -> list of byte strings, float32 array or int64 array.

    Raises:
        ValueError: The bytes are no such message.
    """
    features: dict[str, list[bytes] | np.ndarray] = {}
    try:
        for _, message in _fields(memoryview(data)):
            for _, entry in _fields(message):
                parts = dict(_fields(entry))
                features[bytes(parts[1]).decode()] = _values(parts.get(2, memoryview(b'')))
    except (IndexError, KeyError, TypeError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f'no tf.train.Example: {error}') from error
    return features


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Field numbers and values of a Protocol Buffers message."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, position = _varint(data, position)
            yield number, value
            continue
        if wire == 2:
            length, position = _varint(data, position)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f'wire type {wire}')
        if position + length > len(data):
            raise ValueError('the message ends early')
        yield number, data[position : position + length]
        position += length


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def _values(feature: memoryview) -> list[bytes] | np.ndarray:
    """The list of a ``tf.train.Feature``: bytes (1), packed or single floats (2), integers (3)."""
    for kind, values in _fields(feature):
        items = [item for _, item in _fields(values)]
        if kind == 1:
            return [bytes(item) for item in items]
        if kind == 2:
            return np.frombuffer(b''.join(items), '<f4')
        if kind == 3:
            return np.array([number for item in items for number in _integers(item)], np.int64)
    return []


def _integers(item: memoryview | int) -> Iterator[int]:
    if isinstance(item, int):
        yield _signed(item)
        return
    position = 0
    while position < len(item):
        value, position = _varint(item, position)
        yield _signed(value)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
