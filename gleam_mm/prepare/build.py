"""Writes a planned layout: losslessly, resumably, and the lists only when all images are there."""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from gleam_mm.datasets.fewshot import FGVC_TASKS, IMAGE_FOLDERS
from gleam_mm.datasets.images import eight_bits, reason_of
from gleam_mm.datasets.lists import ImageListError, read_list
from gleam_mm.fileio import UNFINISHED_PREFIX, remove_unfinished, write_bytes
from gleam_mm.machine import cores
from gleam_mm.prepare.manifest import (
    NAME,
    PUBLISHED_LISTS,
    read_manifest,
    write_manifest,
)
from gleam_mm.prepare.plan import Item, Plan
from gleam_mm.prepare.verify import look_at
from gleam_mm.version import __version__

__all__ = ['Published', 'build', 'build_published', 'find_published']

_BEGUN = '.preparing.json'
_CHUNK = 64

Progress = Callable[[str, int, int], None]


def _silent(what: str, done: int, total: int) -> None:
    pass


def build(plan: Plan, root: Path, workers: int | None = None, progress: Progress = _silent) -> bool:
    """Writes a task's folder.

    Images are PNG files. Each is written under a temporary name first, and the lists and the
    manifest come last, so that an interrupted run leaves a folder that no dataset can read by
    mistake, and the next run goes on where it stopped.

    Args:
        plan: What to write.
        root: The folder that gets the task's folder.
        workers: Threads that compress; all cores by default.
        progress: Called with the list, images done and images in all.

    Returns:
        False where the folder had been finished already.

    Raises:
        ValueError: The folder is finished or begun from another source or with other options.
        OSError: An image of the source cannot be read; the message names it.
    """
    folder = root / plan.task
    if not _begin(folder, plan.manifest, list(plan.lists)):
        return False
    texts: dict[str, str] = {}
    placed: dict[tuple[str, str], str] = {}  # folder and source's name -> path in lists
    twins: dict[str, Path] = {}  # source's name -> the file that has it first
    counts: dict[str, int] = {}
    with ThreadPoolExecutor(workers or cores()) as pool:
        for name, split in plan.lists.items():
            inside = plan.folders[name]
            images = folder / plan.base / inside
            images.mkdir(parents=True, exist_ok=True)
            remove_unfinished(images)
            lines = []
            for chunk in _chunks(split.items()):
                jobs = []
                for item in chunk:
                    key = (inside, item.name)
                    if key not in placed:
                        number = counts[inside] = counts.get(inside, -1) + 1
                        placed[key] = f'{inside}/{number:06}.png'
                        file = folder / plan.base / placed[key]
                        jobs.append((item, file, twins.get(item.name)))
                        twins.setdefault(item.name, file)
                    lines.append(f'{placed[key]} {item.label}\n')
                for _ in pool.map(_write_image, *zip(*jobs, strict=True)) if jobs else ():
                    pass
                progress(f'{plan.task}: {name}', len(lines), split.size)
            texts[name] = ''.join(lines)
    _finish(folder, plan.manifest, {name: text.encode() for name, text in texts.items()})
    return True


def _chunks(items: Iterable[Item]) -> Iterator[list[Item]]:
    items = iter(items)
    while chunk := list(islice(items, _CHUNK)):
        yield chunk


def _write_image(item: Item, file: Path, twin: Path | None) -> None:
    """Writes one image, unless a whole one is there already."""
    if file.exists() and look_at(str(file)).error is None:
        return
    temporary = file.with_name(f'{UNFINISHED_PREFIX}{os.getpid()}-{file.name}')
    try:
        if twin is not None:
            _link(twin, temporary)
        else:
            try:
                image = eight_bits(item.load())
                if image.mode not in ('RGB', 'L'):
                    image = image.convert('RGB')
                image.save(temporary, 'PNG')
            except Exception as error:  # decoders raise nearly anything
                if isinstance(error, OSError) and error.errno is not None and error.filename:
                    raise
                raise OSError(
                    f'{item.name} of the source cannot be read as an image: {reason_of(error)}'
                ) from error
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def _link(old: Path, new: Path) -> None:
    """A second name of a file or, where the file system has none, a copy."""
    try:
        os.link(old, new)
    except OSError:
        shutil.copyfile(old, new)


def _begin(folder: Path, manifest: dict, lists: list[str]) -> bool:
    """Marks a folder as begun. Returns False where it is finished already."""
    manifest = json.loads(json.dumps(manifest))
    there = read_manifest(folder)
    other = f'remove {folder}, or write to another folder with --out'
    if there is not None:
        there.pop('written_by', None)
        if there != manifest:
            raise ValueError(
                f'{folder} was prepared from another source or with other options, as its {NAME} '
                f'tells: {other}'
            )
        return False
    if any((folder / name).exists() for name in lists):
        raise ValueError(f'{folder} holds lists already that were not made by this tool: {other}')
    begun = folder / _BEGUN
    if begun.exists() and json.loads(begun.read_text(encoding='utf-8')) != manifest:
        raise ValueError(
            f'{folder} was begun from another source or with other options, as its {_BEGUN} tells: '
            f'{other}'
        )
    write_bytes(begun, json.dumps(manifest, indent=1).encode())
    return True


def _finish(folder: Path, manifest: dict, lists: dict[str, bytes]) -> None:
    if hasattr(os, 'sync'):  # the images must be on disk before anything names them
        os.sync()
    for name, text in lists.items():
        write_bytes(folder / name, text)
    write_manifest(folder, {**manifest, 'written_by': f'GLEAM-MM {__version__}'})
    (folder / _BEGUN).unlink(missing_ok=True)


class Published:
    """A few-shot set's published lists, and the original images that they name.

    Attributes:
        task: Folder name of the set.
        lists: Path in the new folder -> published list.
        images: Path in lists -> original file.
        manifest: What the manifest will say.
    """

    def __init__(
        self, task: str, lists: dict[str, Path], images: dict[str, Path], manifest: dict
    ) -> None:
        self.task, self.lists, self.images, self.manifest = task, lists, images, manifest


# Where torchvision and the original archives put the images.
_ORIGINAL_FOLDERS = {
    'fgvc_aircraft': ('fgvc-aircraft-2013b/data', 'data'),
    'food-101': ('food-101',),
    'oxford_flowers': ('flowers-102',),
    'oxford_pets': ('oxford-iiit-pet',),
    'stanford_cars': ('stanford_cars',),
}


def find_published(task: str, lists: Path, source: Path) -> Published:
    """Finds the published lists of a few-shot set and all images that they name.

    Args:
        task: Folder name of the set.
        lists: Folder of the lists, or of the sets' folders with ``annotations/``.
        source: Folder of the original images, or the folder that torchvision downloaded to.

    Raises:
        FileNotFoundError: There are no lists, or an image is missing; list and line are named.
    """
    folders = [lists, lists / 'annotations']
    folders += [lists / name / 'annotations' for name in FGVC_TASKS[task].folders]
    folder = next((place for place in folders if (place / 'test_meta.list').is_file()), None)
    if folder is None:
        raise FileNotFoundError(
            f'{lists}: there is no test_meta.list, neither here nor in '
            f'{FGVC_TASKS[task].folders[0]}/annotations/'
        )
    files = sorted(folder.glob('train_meta.list.num_shot_*'))
    files += [folder / f'{split}_meta.list' for split in ('val', 'test')]
    first = next(read_list(folder / 'test_meta.list'), None)
    if first is None:
        raise ImageListError(f'{folder / "test_meta.list"}: the list is empty')
    bases = [source / name for name in ('', *FGVC_TASKS[task].folders, *_ORIGINAL_FOLDERS[task])]
    places = [base / name for base in bases for name in IMAGE_FOLDERS]
    place = next((place for place in places if (place / first.image).is_file()), None)
    if place is None:
        raise FileNotFoundError(
            f'{source}: {first.image}, the first image of {folder / "test_meta.list"}, is neither '
            'here nor in a usual folder below'
        )
    images: dict[str, Path] = {}
    for file in files:
        for line in read_list(file):
            if line.image not in images:
                images[line.image] = place / line.image
                if not images[line.image].is_file():
                    raise FileNotFoundError(
                        f'{file}, line {line.number}: {images[line.image]} does not exist'
                    )
    manifest = {
        'task': task,
        'choice': PUBLISHED_LISTS,
        'official': True,
        'note': 'The published lists of the few-shot benchmark, and copies of the original files.',
        'source': {'kind': 'published-lists', 'path': str(place.absolute())},
        'lists': {file.name: sum(1 for _ in read_list(file)) for file in files},
    }
    return Published(task, {f'annotations/{file.name}': file for file in files}, images, manifest)


def build_published(found: Published, root: Path, progress: Progress = _silent) -> bool:
    """Writes a few-shot set's folder from published lists; the images are copied as they are.

    Returns:
        False where the folder had been finished already.

    Raises:
        ValueError: The folder is finished or begun from another source.
    """
    folder = root / found.task
    if not _begin(folder, found.manifest, list(found.lists)):
        return False
    for number, (name, original) in enumerate(found.images.items(), start=1):
        file = folder / 'images' / name
        if not file.exists() or file.stat().st_size != original.stat().st_size:
            file.parent.mkdir(parents=True, exist_ok=True)
            temporary = file.with_name(f'{UNFINISHED_PREFIX}{os.getpid()}-{file.name}')
            try:
                shutil.copyfile(original, temporary)
                temporary.replace(file)
            finally:
                temporary.unlink(missing_ok=True)
        if number % _CHUNK == 0 or number == len(found.images):
            progress(f'{found.task}: images', number, len(found.images))
    for place in {(folder / 'images' / name).parent for name in found.images}:
        remove_unfinished(place)
    _finish(folder, found.manifest, {name: file.read_bytes() for name, file in found.lists.items()})
    return True
