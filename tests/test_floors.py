"""The floors of the package: imports run downwards, and never in a circle."""

import ast
from collections.abc import Iterable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

from mmpretrain.models import backbones

import gleam_mm

ROOT = Path(gleam_mm.__file__).parent
FLOORS = (  # from the lowest; the folders and loose files of one floor do not import each other
    ('messages',),
    (
        'version',
        'errors',
        'arguments',
        'shapes',
        'interrupts',
        'fileio',
        'machine',
        'compat',
        'devices',
        'registry',
        'shell',
    ),
    ('output', 'config', 'datasets', 'layouts'),
    ('checkpoint', 'minivtab', 'prepare'),
    ('petl',),
    ('models',),
    ('inference',),
    ('combine', 'bank'),
    ('engine',),
    ('analysis', 'doctor', 'incremental', 'serve', 'sweep'),
    ('search', 'report'),
    ('cli', '__init__'),
)
LEVELS = {name: level for level, names in enumerate(FLOORS) for name in names}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


MODULES = {name_of(path): path for path in ROOT.rglob('*.py')}


def imports(source: str) -> Iterator[str]:
    """What a module imports, inside of its functions as well."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, 'a relative import, of which the house has none'
            names = [f'{node.module}.{alias.name}' for alias in node.names]
        else:
            continue
        yield from names


def own(names: Iterable[str]) -> set[str]:
    """Those of our own modules that are imported, or from which a name is."""
    ours = [name for name in names if name.partition('.')[0] == 'gleam_mm']
    return {name if name in MODULES else name.rpartition('.')[0] for name in ours}


def home(module: str) -> str:
    """The folder or loose file at the top that a module is in."""
    return [*module.split('.'), '__init__'][1]


IMPORTS = {module: set(imports(path.read_text('utf-8'))) for module, path in MODULES.items()}
GRAPH = {module: own(names) for module, names in IMPORTS.items()}


def test_every_import_is_seen():
    source = """
import gleam_mm.fileio
from gleam_mm import petl, __version__
from torch import nn
def later():
    from gleam_mm.sweep.study import open_study
"""
    expected = {'gleam_mm.fileio', 'gleam_mm.petl', 'gleam_mm', 'gleam_mm.sweep.study'}
    assert own(imports(source)) == expected


def test_every_folder_has_its_floor():
    there = {home(module) for module in MODULES}
    assert there == LEVELS.keys(), 'put a new folder on its floor, and take an old one off'


def test_imports_run_downwards():
    upwards = [
        f'{module} -> {other}'
        for module, others in GRAPH.items()
        for other in others
        if home(module) != home(other) and LEVELS[home(module)] <= LEVELS[home(other)]
    ]
    assert not upwards


def test_no_circles():
    TopologicalSorter(GRAPH).prepare()  # raises CycleError, which names the modules


def test_only_layouts_know_classes_of_backbones():
    contract = 'mmpretrain.models.backbones.base_backbone.BaseBackbone'
    sizes = 'timm.models.get_pretrained_cfg'  # of the pictures that a pretrained model wants
    by_name = {'timm', 'timm.data.resolve_data_config'}  # whole models, whatever their class
    known = [
        f'{module} imports {name}'
        for module, names in IMPORTS.items()
        for name in names - {contract, sizes} - by_name
        if home(module) != 'layouts'
        and (
            name.startswith(('timm', 'mmpretrain.models.backbones'))
            or (name.startswith('mmpretrain') and hasattr(backbones, name.rpartition('.')[2]))
        )
    ]
    assert not known
