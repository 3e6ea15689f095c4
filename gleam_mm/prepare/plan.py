"""Which image of a source goes into which split: decided before anything is written."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from gleam_mm.datasets.choose import few_of_each, stratified
from gleam_mm.datasets.fewshot import FGVC_TASKS
from gleam_mm.datasets.vtab import VTAB_TASKS
from gleam_mm.prepare.manifest import SEEDED, TFDS_ORDER, TFDS_UNOFFICIAL
from gleam_mm.prepare.origins import VTAB_ORIGINS, record_label, tfds_slices
from gleam_mm.prepare.sources import Pool
from gleam_mm.prepare.tfrecord import Slice, TFDSCopy

__all__ = ['Item', 'Plan', 'Split', 'plan_fgvc', 'plan_from_tfds', 'plan_vtab', 'tfds_folder']

# dSprites comes with pixels of 0 and 1.
_SCALES = {'dsprites_loc': 255, 'dsprites_ori': 255}


class Item(NamedTuple):
    """An image to write: what identifies it in the source, its label, and how to open it."""

    name: str
    label: int
    load: Callable[[], Image.Image]


class Split(NamedTuple):
    """A list to write: how many images, and how to go through them."""

    size: int
    items: Callable[[], Iterator[Item]]


class Plan(NamedTuple):
    """What a task's folder will be.

    Attributes:
        task: Folder name of the task.
        lists: List file, relative to the folder -> its split.
        folders: List file -> folder of its images. Lists of the same folder share images.
        base: Folder that ``folders`` and the paths in the lists are relative to.
        manifest: What the manifest will say.
    """

    task: str
    lists: dict[str, Split]
    folders: dict[str, str]
    base: str
    manifest: dict


def _vtab_plan(task: str, splits: dict[str, Split], manifest: dict) -> Plan:
    order = ('train800', 'val200', 'test', 'train800val200')
    lists = {f'{name}.txt': splits[name] for name in order}
    return Plan(task, lists, {f'{name}.txt': f'images/{name}' for name in order}, '', manifest)


def tfds_folder(task: str, root: Path) -> Path:
    """The copy of a task's dataset in a TFDS data folder: of VTAB's version, if it is there.

    Args:
        task: Folder name of the task.
        root: ``data_dir`` of TFDS, or the folder of the dataset or of one version of it.

    Raises:
        FileNotFoundError: There is none.
    """
    dataset, wanted = VTAB_ORIGINS[task].dataset, VTAB_ORIGINS[task].version
    if (root / 'dataset_info.json').is_file():
        return root
    for folder in (root / dataset, root):
        if not folder.is_dir():
            continue
        versions = {
            tuple(map(int, path.name.split('.'))): path
            for path in folder.iterdir()
            if path.name.replace('.', '').isdigit() and (path / 'dataset_info.json').is_file()
        }
        if versions:
            return versions[max(versions, key=lambda number: (number[0] == wanted, number))]
    raise FileNotFoundError(f'{root}: there is no {dataset}/<version>/dataset_info.json')


def plan_from_tfds(task: str, root: Path) -> Plan:
    """Plans a task from a TensorFlow Datasets copy: exactly the images of VTAB-1K.

    Raises:
        FileNotFoundError: There is no copy of the dataset.
        ValueError: The copy cannot be read.
    """
    spec = VTAB_ORIGINS[task]
    folder = tfds_folder(task, root)
    copy = TFDSCopy(folder)
    slices = tfds_slices(task, copy)
    official = int(copy.version.split('.')[0]) == spec.version
    sizes = {name: sum(part.stop - part.start for part in parts) for name, parts in slices.items()}
    facts = VTAB_TASKS[task]
    expected = {'train800': 800, 'val200': 200, 'test': facts.test_size}
    odd = [name for name, size in expected.items() if sizes[name] != size]
    note = 'The images of VTAB-1K, in the order of TensorFlow Datasets.'
    if not official:
        note = (
            f'VTAB-1K is defined on version {spec.version}.x of this dataset. The copy is version '
            f'{copy.version}, whose order may differ.'
        )
    elif odd:
        official = False
        note = f'The copy has not the size of the original: {", ".join(odd)} differ from VTAB-1K.'
    manifest = {
        'task': task,
        'choice': TFDS_ORDER if official else TFDS_UNOFFICIAL,
        'official': official,
        'note': note,
        'source': {
            'kind': 'tfds',
            'path': str(folder.absolute()),
            'dataset': spec.dataset,
            'version': copy.version,
        },
        'slices': {
            name: '+'.join(f'{part.split}[{part.start}:{part.stop}]' for part in parts)
            for name, parts in slices.items()
        },
        'sizes': sizes,
    }
    splits = {
        name: Split(sizes[name], lambda parts=parts: _tfds_items(task, copy, parts))
        for name, parts in slices.items()
    }
    return _vtab_plan(task, splits, manifest)


def _tfds_items(task: str, copy: TFDSCopy, parts: Sequence[Slice]) -> Iterator[Item]:
    rule, scale = VTAB_ORIGINS[task].label, _SCALES.get(task)
    for name, record in copy.read(parts):
        data = record['image'][0]
        yield Item(name, record_label(rule, record), lambda data=data: _decode(data, scale))


def _decode(data: bytes, scale: int | None) -> Image.Image:
    image = Image.open(BytesIO(data))
    return image if scale is None else image.point(lambda value: value * scale)


def plan_vtab(
    task: str,
    pools: dict[str, Pool],
    source: dict,
    seed: int = 0,
    sizes: tuple[int, int, int] | None = None,
) -> Plan:
    """Plans a task from any other source: a seeded stratified choice of the sizes of VTAB-1K.

    The test split is the source's where it has one of the right size, so that results remain
    comparable in that at least. Otherwise it is chosen as well.

    Args:
        task: Folder name of the task.
        pools: Split (``train``, ``val``, ``test``) -> pool.
        source: What the manifest says about the source.
        seed: Another seed makes another choice.
        sizes: Of train800, val200 and test, to try things out; those of VTAB-1K by default.

    Raises:
        ValueError: The source is too small, or a label is out of range.
    """
    facts = VTAB_TASKS[task]
    _check_labels(task, pools, facts.num_classes)
    train_size, val_size, test_size = sizes or (800, 200, facts.test_size)
    chosen: dict[str, tuple[Pool, list[int]]] = {}
    wants = {'train': [('train800', train_size)]}
    wants.setdefault('val' if 'val' in pools else 'train', []).append(('val200', val_size))
    whole_test = 'test' in pools and len(pools['test'].labels) == test_size
    if whole_test:
        chosen['test'] = pools['test'], list(range(test_size))
    else:
        wants.setdefault('test' if 'test' in pools else 'train', []).append(('test', test_size))
    for split, parts in wants.items():
        if split not in pools:
            raise ValueError(f'{task}: the source has no {split} split')
        pool = pools[split]
        try:
            indices = stratified(pool.labels, [size for _, size in parts], seed)
        except ValueError as error:
            raise ValueError(f'{task}: the {split} split of the source: {error}') from None
        for (name, _), part in zip(parts, indices, strict=True):
            chosen[name] = pool, part
    selections = {name: [chosen[name]] for name in ('train800', 'val200', 'test')}
    selections['train800val200'] = [chosen['train800'], chosen['val200']]
    splits = {name: _pool_split(parts) for name, parts in selections.items()}
    manifest = {
        'task': task,
        'choice': SEEDED,
        'official': False,
        'note': 'NOT the images of VTAB-1K, which are defined by the order of TensorFlow Datasets, '
        'but as many, chosen at random with every class in proportion. '
        + (
            "The test split is the source's own."
            if whole_test
            else 'The test split is chosen in the same way.'
        ),
        'source': source,
        'seed': seed,
        'sizes': {name: split.size for name, split in splits.items()},
        'images': {name: digest(splits[name]) for name in splits},
    }
    return _vtab_plan(task, splits, manifest)


def plan_fgvc(
    task: str,
    pools: dict[str, Pool],
    source: dict,
    shots: Sequence[int],
    seeds: Sequence[int],
    seed: int = 0,
    sizes: tuple[int, int] | None = None,
) -> Plan:
    """Plans a few-shot set without the published lists: seeded choices of the same kind.

    Args:
        task: Folder name of the set.
        pools: Split -> pool. Without ``val`` it is taken from ``train`` first.
        source: What the manifest says about the source.
        shots: Images a class, a list each.
        seeds: Seeds, a list each.
        seed: Seed of what belongs to all lists: val, and test where the source has none.
        sizes: Of val and test; those of the published lists by default.

    Raises:
        ValueError: The source is too small, or a label is out of range.
    """
    facts = FGVC_TASKS[task]
    _check_labels(task, pools, facts.num_classes)
    if 'train' not in pools:
        raise ValueError(f'{task}: the source has no train split')
    val_size, test_size = sizes or (facts.val_size, facts.test_size)
    train = pools['train']
    missing = [
        (name, size) for name, size in (('val', val_size), ('test', test_size)) if name not in pools
    ]
    try:
        held = stratified(train.labels, [size for _, size in missing], seed)
        held_out = {name: part for (name, _), part in zip(missing, held, strict=True)}
        taken = {index for part in held for index in part}
        rest = [index for index in range(len(train.labels)) if index not in taken]
        labels = [train.labels[index] for index in rest]
        training = {
            (shot, number): [rest[index] for index in few_of_each(labels, shot, number)]
            for shot in shots
            for number in seeds
        }
    except ValueError as error:
        raise ValueError(f'{task}: {error}') from None
    lists, folders = {}, {}
    for (shot, number), indices in training.items():
        name = f'annotations/train_meta.list.num_shot_{shot}.seed_{number}'
        lists[name], folders[name] = _pool_split([(train, indices)]), 'train'
    for split in ('val', 'test'):
        pool = pools.get(split, train)
        indices = held_out.get(split) or list(range(len(pool.labels)))
        name = f'annotations/{split}_meta.list'
        lists[name], folders[name] = _pool_split([(pool, indices)]), split
    manifest = {
        'task': task,
        'choice': SEEDED,
        'official': False,
        'note': 'NOT the published lists of the few-shot benchmark, but choices of the same kind. '
        + (f'Taken from the training split: {", ".join(held_out)}.' if held_out else ''),
        'source': source,
        'seed': seed,
        'sizes': {name: split.size for name, split in lists.items()},
        'images': {name: digest(split) for name, split in lists.items()},
    }
    return Plan(task, lists, folders, 'images', manifest)


def _check_labels(task: str, pools: dict[str, Pool], classes: int) -> None:
    for split, pool in pools.items():
        for index, label in enumerate(pool.labels):
            if not 0 <= label < classes:
                raise ValueError(
                    f'{task}: {pool.name(index)} of the {split} split has label {label}, but the '
                    f'task has {classes} classes, 0 to {classes - 1}'
                )


def _pool_split(parts: Sequence[tuple[Pool, Sequence[int]]]) -> Split:
    def items() -> Iterator[Item]:
        for pool, indices in parts:
            for index in indices:
                yield Item(
                    pool.name(index), pool.labels[index], lambda pool=pool, i=index: pool.load(i)
                )

    return Split(sum(len(indices) for _, indices in parts), items)


def digest(split: Split) -> str:
    """A checksum of the names and labels of a split's images, in order."""
    check = hashlib.sha256()
    for item in split.items():
        check.update(f'{item.name} {item.label}\n'.encode())
    return f'sha256:{check.hexdigest()}'
