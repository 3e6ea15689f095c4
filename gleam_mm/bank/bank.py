"""A bank of adapters: one backbone in memory, and every task that was trained on it."""

import json
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gleam_mm.bank.backbones import Backbone, ClassifierBackbone, TimmBackbone
from gleam_mm.bank.kind import Kind
from gleam_mm.bank.store import Loaded, Store
from gleam_mm.checkpoint import CheckpointError, fingerprint, read_adapter
from gleam_mm.config import recipes
from gleam_mm.devices import usable
from gleam_mm.fileio import arriving
from gleam_mm.inference import preprocessing
from gleam_mm.inference.pictures import (
    Picture,
    Preparation,
    is_folder,
    pictures_in,
    tells_numbers,
    told,
)
from gleam_mm.messages import listed
from gleam_mm.models import library
from gleam_mm.models.parts import checked_part
from gleam_mm.registry import MODELS, own_scope

BATCH = 32
"""Images of one pass."""

_NAME = re.compile(r'\w[\w.+-]{0,99}', re.ASCII)


class UnknownTaskError(LookupError):
    """There is no task of that name; the message has those that there are."""


@dataclass(frozen=True, eq=False)
class _Task:
    """A task, which is the same for as long as it is in the bank.

    Attributes:
        name: What requests call it.
        path: The adapter file.
        fingerprint: That of the tensors in it.
        method: The config of the method.
        classes: Names of the classes; None where the adapter has none.
        kind: What runs it.
        preparation: What is done to its pictures.
        numbers: Whether its head predicts numbers, of which the classes are the names.
    """

    name: str
    path: Path
    fingerprint: str
    method: Any
    classes: list[str | int] | None
    kind: Kind
    preparation: Preparation
    numbers: bool


@dataclass(frozen=True, eq=False)
class Prepared:
    """A picture as its task's model takes it; :meth:`AdapterBank.prepare` makes them."""

    task: _Task
    data: dict[str, Any]

    @property
    def numbers(self) -> bool:
        """Whether the task's scores are numbers of a ``RegressionHead``."""
        return self.task.numbers

    def told(self, scores: Tensor, top_k: int | None = None) -> Any:
        """What the picture's scores, of :meth:`AdapterBank.scores`, tell of it."""
        (found,) = told(scores[None], self.task.classes, top_k, self.numbers)
        return found


class Memory(NamedTuple):
    """Bytes that a bank holds where it computes.

    Attributes:
        backbone: The backbone's weights.
        adapters: The adapters' numbers, without their heads.
        heads: The heads.
        tasks: How many of the tasks are held; the others come when they are asked for.
    """

    backbone: int
    adapters: int
    heads: int
    tasks: int


class AdapterBank:
    """Classifies images of many tasks on one backbone, each by its own adapter.

    A batch may mix tasks. Adapters of one kind, which is one method's config, run in one pass, in
    which each image meets the numbers of its own adapter (:class:`~gleam_mm.bank.kind.Kind`);
    different kinds run one after the other. Each image has its own task's preprocessing, head and
    classes, and gets what :class:`gleam_mm.Predictor` would give it.

    Tasks may be added and removed while others are computed, from any thread: a request keeps the
    tasks that it began with.

    Args:
        backbone: The name of a backbone of the recipes (``'vit-b'``), or the config of one. By
            default that of the first adapter, which may be a model of timm.
        adapters: Adapter files by the name of their task: letters, digits, ``_``, ``.``, ``+`` and
            ``-``.
        weights: A file with the weights of the backbone, which is looked for elsewhere as by
            :class:`gleam_mm.Predictor`.
        device: Where to compute; by default on a GPU if there is one.
        device_bytes: How much memory adapters may take there; the least recently used move to the
            CPU's memory or, where the device is the CPU, stay in their files until they are needed
            again. None is no limit.
        host_bytes: How much adapters may take of the CPU's memory beside another device.

    Raises:
        FileNotFoundError: An adapter is not there, or the backbone's weights are nowhere.
        CheckpointError: An adapter is damaged, was trained on other weights, or describes what is
            not built from a file. The message names the file, and both fingerprints.
        RecipeError: There is no such backbone.
        ValueError: A task has no fitting name.
        ArgumentError: ``adapters`` are files without names.

    Examples:
        >>> bank = gleam_mm.AdapterBank('vit-b', adapters={'pets': 'pets.safetensors'})
        >>> bank.add('cars', 'cars.safetensors')
        >>> bank(['cat.jpg', 'car.jpg'], tasks=['pets', 'cars'])
        [Prediction(label='Abyssinian', score=0.98), Prediction(label='Fiat 500', score=0.95)]
    """

    def __init__(
        self,
        backbone: str | Mapping[str, Any] | None = None,
        adapters: Mapping[str, str | Path] | None = None,
        weights: str | Path | None = None,
        device: str | torch.device | None = None,
        device_bytes: int | None = None,
        host_bytes: int | None = None,
    ) -> None:
        self.device = usable(device)
        self._weights = weights
        self._backbone: Backbone | None = None
        if backbone is not None:
            config = recipes.backbone_preset(backbone) if isinstance(backbone, str) else backbone
            who = backbone if isinstance(backbone, str) else 'backbone'
            self._backbone = ClassifierBackbone(config, who, weights, self.device)
        self._tasks: dict[
            str, _Task
        ] = {}  # replaced as a whole, so that who reads it needs no lock
        self._active: str | None = None
        self._adding, self._changing = threading.Lock(), threading.Lock()
        self._preparations: dict[str, Preparation] = {}
        self._store: Store[_Task] = Store(self._load, self.device, device_bytes, host_bytes)
        for name, path in library.files_by_name(adapters).items():
            self.add(name, path)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of the tasks, in the order in which they came."""
        return tuple(self._tasks)

    @property
    def memory(self) -> Memory:
        """What the bank holds where it computes."""
        held = self._store.held()
        return Memory(
            backbone=0 if self._backbone is None else self._backbone.bytes,
            adapters=sum(loaded.adapter_bytes for loaded in held),
            heads=sum(loaded.head_bytes for loaded in held),
            tasks=len(held),
        )

    def add(self, name: str, path: str | Path, content: bytes | None = None) -> None:
        """Adds a task, which is there for all requests from then on.

        Args:
            name: What requests call it.
            path: Its adapter file, which has to stay where it is as long as the task is there.
            content: What to write to that file first; it has its name only after the check.

        Raises:
            FileNotFoundError: There is no such file.
            CheckpointError: The adapter does not belong to the bank's backbone, has a head of
                several tasks, or is damaged.
            ValueError: The name does not fit, or is taken.
        """
        check_name(name)
        with self._adding:
            self._require_free(name)
            if content is None:
                backbone, task, loaded = self._checked(name, path, path)
            else:
                with arriving(path, content) as unchecked:
                    backbone, task, loaded = self._checked(name, path, unchecked)
            with self._changing:
                self._backbone = backbone
                self._store.put(task, loaded)
                self._tasks = {**self._tasks, name: task}

    def remove(self, name: str) -> None:
        """Removes a task. Requests that have begun are answered.

        Raises:
            UnknownTaskError: There is none of that name.
        """
        with self._changing:
            task = self._task(name)
            self._tasks = {other: task for other, task in self._tasks.items() if other != name}
            self._store.drop(task)
            if self._active == name:
                self._active = None

    def active(self, name: str | None = None) -> str | None:
        """Chooses the task of calls that name none.

        Args:
            name: The task; without it nothing changes.

        Returns:
            The active task.

        Raises:
            UnknownTaskError: There is none of that name.
        """
        if name is not None:
            with self._changing:
                self._active = self._task(name).name
        return self._active

    def describe(self, name: str) -> dict[str, Any]:
        """What is known of a task: its classes, the type and options of its method, its size.

        Raises:
            UnknownTaskError: There is none of that name.
        """
        task = self._task(name)
        return {
            'classes': task.classes,
            'method': task.method,
            'adapter_bytes': task.kind.row_bytes,
            'batched': task.kind.batches,
        }

    def __call__(
        self,
        images: Picture | Sequence[Picture],
        tasks: str | Sequence[str] | None = None,
        top_k: int | None = None,
    ) -> Any:
        """Tells the classes of images.

        Args:
            images: A picture, as :class:`gleam_mm.Predictor` takes it, or a list of them; or a
                folder, whose pictures are found at any depth.
            tasks: The task of each image, or one for all; by default the active one.
            top_k: How many classes to tell of each image, at least one. By default the best one
                alone.

        Returns:
            As of :class:`gleam_mm.Predictor`: a :class:`~gleam_mm.inference.Prediction`; with
            ``top_k`` a list of them, the best first; of a task of several numbers, a list of all.
            Of a list of images, a list of that; of a folder, a dictionary by the names of the
            files.

        Raises:
            UnknownTaskError: There is no such task, or none is active.
            UnreadableImageError: A picture cannot be read.
            FileNotFoundError: The folder has no pictures.
            ValueError: There are not as many tasks as images, or the shape or the numbers of an
                array are none of a picture.
            ArgumentError: ``top_k`` is no such number.
        """
        if is_folder(images):
            files = pictures_in(images)  # type: ignore[arg-type]
            return dict(zip(files, self(files, tasks, top_k), strict=True))
        several = isinstance(images, list | tuple)
        pictures: Sequence[Any] = images if several else [images]  # type: ignore[assignment]
        if tasks is None or isinstance(tasks, str):
            tasks = [self._task(tasks).name] * len(pictures)
        if len(tasks) != len(pictures):
            raise ValueError(f'{len(tasks)} tasks for {len(pictures)} images: give one an image')
        named = self._tasks  # one state of the bank for all of them
        pairs = list(zip(pictures, [self._task(name, named) for name in tasks], strict=True))
        found: list[Any] = []
        for start in range(0, len(pairs), BATCH):  # a folder's pictures are not all in memory
            part = [Prepared(task, task.preparation(p)) for p, task in pairs[start : start + BATCH]]
            found += self.predict(part, top_k)
        return found if several else found[0]

    def prepare(self, picture: Picture, task: str | None = None) -> Prepared:
        """Prepares a picture for :meth:`predict`, so that one thread reads what another computes.

        Args:
            picture: The picture.
            task: Its task; by default the active one.

        Raises:
            UnknownTaskError: There is no such task.
            UnreadableImageError: The picture cannot be read.
        """
        found = self._task(task)
        return Prepared(found, found.preparation(picture))

    def predict(self, prepared: Sequence[Prepared], top_k: int | None = None) -> list[Any]:
        """Tells the classes of prepared pictures, of any tasks; see :meth:`__call__`."""
        each = zip(prepared, self.scores(prepared), strict=True)
        return [item.told(scores, top_k) for item, scores in each]

    @torch.no_grad()
    def scores(self, prepared: Sequence[Prepared]) -> list[Tensor]:
        """The scores of prepared pictures, from 0 to 1, or what a ``RegressionHead`` predicts.

        Returns:
            For each picture a vector on the CPU, with a number for each class of its task.
        """
        found: list[Tensor] = []
        for start in range(0, len(prepared), BATCH):
            found += self._pass(prepared[start : start + BATCH])
        return found

    def _pass(self, prepared: Sequence[Prepared]) -> list[Tensor]:
        assert self._backbone is not None  # or there would be no task
        loaded = self._store.fetch([item.task for item in prepared])
        images = self._images(prepared)
        found: dict[int, Tensor] = {}
        kinds = [item.task.kind for item in prepared]
        runs = _grouped(zip(kinds, (image.shape for image in images), strict=True))
        for (kind, _), run in runs.items():
            features = kind.features(
                torch.stack([images[i] for i in run]), [loaded[i].row for i in run]
            )
            for head, of_head in _grouped(loaded[i].head for i in run).items():
                scores = self._backbone.scores(head, tuple(part[of_head] for part in features))
                found |= zip([run[i] for i in of_head], scores.cpu(), strict=True)
        return [found[i] for i in range(len(prepared))]

    def _images(self, prepared: Sequence[Prepared]) -> list[Tensor]:
        """The images on the device, each prepared as its task wants it."""
        found: dict[int, Tensor] = {}
        shapes = ((item.task.preparation, item.data['inputs'].shape) for item in prepared)
        for (preparation, _), alike in _grouped(shapes).items():
            batch = preparation.batch([prepared[i].data for i in alike])
            found |= zip(alike, batch['inputs'].to(self.device), strict=True)
        return [found[i] for i in range(len(prepared))]

    def _checked(
        self, name: str, path: str | Path, at: str | Path
    ) -> tuple[Backbone, _Task, Loaded]:
        """A task of the file that is at another name for as long as it is not checked."""
        try:
            tensors, metadata = read_adapter(at)
        except CheckpointError as error:
            raise CheckpointError(str(error).replace(str(at), str(path))) from error
        backbone = self._backbone or self._backbone_of(metadata, path)
        kind, row, head = backbone.take(tensors, metadata, path)
        task = _Task(
            name=name,
            path=Path(path),
            fingerprint=fingerprint(tensors),
            method=metadata['method'],
            classes=metadata.get('classes'),
            kind=kind,
            preparation=self._preparation(metadata, path),
            numbers=tells_numbers(head),
        )
        return backbone, task, Loaded(row, head)

    def _load(self, task: _Task) -> Loaded:
        """Reads a task's adapter again."""
        assert self._backbone is not None
        tensors, metadata = read_adapter(task.path)
        if fingerprint(tensors) != task.fingerprint:
            raise CheckpointError(
                f'{task.path}: is not the adapter any more that task {task.name!r} was added with: '
                'remove the task and add it again'
            )
        _, row, head = self._backbone.take(tensors, metadata, task.path)
        return Loaded(row, head)

    def _backbone_of(self, metadata: Mapping[str, Any], path: str | Path) -> Backbone:
        """The backbone that an adapter was trained on."""
        if metadata.get('model'):
            return TimmBackbone(metadata, path, self._weights, self.device)
        if 'model' in metadata or not metadata.get('backbone'):
            raise CheckpointError(
                f'{path}: does not say how to build its backbone: give the bank one'
            )
        try:
            config = checked_part('backbone', metadata['backbone'])
        except CheckpointError as error:
            raise CheckpointError(f'{path}: {error}') from error
        return ClassifierBackbone(config, path, self._weights, self.device)

    def _preparation(self, metadata: Mapping[str, Any], path: str | Path) -> Preparation:
        """What is done to the pictures of an adapter; tasks that agree share it."""
        config = metadata.get('data_preprocessor') or {}
        key = json.dumps([metadata.get('pipeline'), config], sort_keys=True)
        if key not in self._preparations:
            pipeline = preprocessing.of_adapter(metadata, path)
            try:
                checked = checked_part('data_preprocessor', config)
            except CheckpointError as error:
                raise CheckpointError(f'{path}: {error}') from error
            with own_scope():
                preprocessor = MODELS.build(checked)
            self._preparations[key] = Preparation(pipeline, preprocessor.to(self.device))
        return self._preparations[key]

    def _task(self, name: str | None, tasks: Mapping[str, _Task] | None = None) -> _Task:
        tasks = self._tasks if tasks is None else tasks
        name = self._active if name is None else name
        if name is None:
            raise UnknownTaskError('no task is active: give tasks=, or call active(task) first')
        if name not in tasks:
            raise UnknownTaskError(f'no task {name!r}; there are: {listed(list(tasks), 10)}')
        return tasks[name]

    def _require_free(self, name: str) -> None:
        if name in self._tasks:
            raise ValueError(f'task {name!r} is there already: remove it first')


def check_name(name: Any) -> str:
    """The name of a task, which becomes a part of addresses and of files' names.

    Raises:
        ValueError: It does not fit.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            f'task {name!r}: a name has up to 100 letters, digits, _, ., + and -, and begins with '
            'a letter, a digit or _'
        )
    return name


def _grouped(keys: Any) -> dict[Any, list[int]]:
    """Key -> where it stands."""
    groups: dict[Any, list[int]] = {}
    for index, key in enumerate(keys):
        groups.setdefault(key, []).append(index)
    return groups
