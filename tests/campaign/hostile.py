"""Reads files and databases that are crafted to do harm, and counts how many are refused.

    python tests/campaign/hostile.py --files 300 --seed 0

There are those that the test suite names, and random ones: the metadata of an adapter in which one
value at a random place is replaced by one that asks for a program, a file, an address, a size
without bounds or something that is no config. Each is refused if reading it ends in one line,
within limits of time and memory, and has neither run nor imported anything. Prints what was tried
and what passed, by kind, and exits with 1 if anything has failed.
"""

import argparse
import contextlib
import copy
import json
import os
import random
import resource
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
sys.path[:0] = [
    str(TESTS / folder)
    for folder in ('.', 'checkpoint', 'datasets', 'models', 'search', 'sweep', 'engine')
]

import gleam_mm  # noqa: E402, F401

# isort: split

import safetensors.torch  # noqa: E402
import test_adapter_files  # noqa: E402
import test_building  # noqa: E402
import test_convert  # noqa: E402
import test_evolution  # noqa: E402
import test_images  # noqa: E402
import test_lists  # noqa: E402
import test_reading  # noqa: E402
import test_schema  # noqa: E402
import torch  # noqa: E402
from backbones import CONFIGS, WIDTH  # noqa: E402
from mmengine.registry import DefaultScope  # noqa: E402
from tally import Tally  # noqa: E402

from gleam_mm.checkpoint import read_adapter, read_state_dict  # noqa: E402
from gleam_mm.checkpoint.convert import convert_file  # noqa: E402
from gleam_mm.datasets import LoadImageFromFile  # noqa: E402
from gleam_mm.inference import Predictor  # noqa: E402
from gleam_mm.models import load_model  # noqa: E402
from gleam_mm.registry import MODELS  # noqa: E402
from gleam_mm.search.evolution import Settings, read_scores, write_scores  # noqa: E402
from gleam_mm.sweep import read_results  # noqa: E402
from gleam_mm.sweep.study import begin_study, open_study  # noqa: E402

SECONDS, BYTES = 20, 4 * 2**30
"""How much CPU time reading a file may take, and memory beyond what this process has."""

MARKER = 'ran'  # what a hostile file would make
CALL = {'type': 'subprocess.check_call', 'args': [['touch', MARKER]]}


def deep(levels: int) -> list:
    """A list in a list in a list."""
    nested: list = []
    for _ in range(levels):
        nested = [nested]
    return nested


VALUES = {
    'program': [
        *(CALL, [CALL], {'a': CALL}, {'type': 'os.system', 'command': f'touch {MARKER}'}),
        *({'type': 'evil.Evil'}, {'type': 'builtins.eval'}, {'type': ['LoRA']}),
    ],
    'file or address': [
        *('/etc/passwd', '../../etc/passwd', 'http://host/x.pth', 's3://bucket/x', '\\\\host\\x'),
        *('hf-hub:owner/name', 'file:///dev/zero', '~/.ssh/id_rsa'),
    ],
    'size': [10**9, -(10**9), 10**100, [10**9] * 3, {'a': 10**12}],
    'no config': [deep(400), {'type': None}, {'type': 7}, {'_scope_': 'evil'}, [[[{'type': ''}]]]],
}


def metadata(weights: Path) -> dict[str, Any]:
    """What an honest adapter file says of its model."""
    init_cfg = {'type': 'Pretrained', 'checkpoint': str(weights), 'prefix': ''}
    return {
        'method': {'type': 'GLEAM', 'rank': 2, 'sites': ['qkv', 'fc1'], 'top_k': 1},
        'backbone': {**copy.deepcopy(CONFIGS['vit']), 'init_cfg': init_cfg},
        'neck': None,
        'head': {
            'type': 'LinearClsHead',
            'in_channels': WIDTH,
            'num_classes': 3,
            'loss': {'type': 'LabelSmoothLoss', 'label_smooth_val': 0.1},
        },
        'data_preprocessor': {'mean': [127.5] * 3, 'std': [127.5] * 3, 'to_rgb': True},
        'pipeline': [
            {'type': 'LoadImageFromFile'},
            {'type': 'Resize', 'scale': [32, 32], 'backend': 'pillow'},
            {'type': 'PackInputs'},
        ],
    }


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """The places of all values in nested containers."""
    if path:
        yield path
    inner: Any = ()
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    for key, part in inner:
        yield from places(part, (*path, key))


def replaced(document: dict, path: tuple, value: Any) -> dict:
    """A copy in which the value at a place is another one."""
    document = copy.deepcopy(document)
    inner: Any = document
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return document


def cases(test: Callable) -> list:
    """What a test of the suite is parametrised with."""
    return next(mark for mark in test.pytestmark if mark.name == 'parametrize').args[1]


def metadata_of_files(number: int, generator: random.Random) -> Iterator[tuple[str, Any, Any]]:
    """Adapter files: kind, name, and what reads them."""
    torch.manual_seed(0)
    weights = Path('backbone.pth').absolute()
    torch.save(MODELS.build(copy.deepcopy(CONFIGS['vit'])).state_dict(), weights)
    honest = metadata(weights)
    path = Path('crafted.safetensors').absolute()
    tensors = {'head.fc.weight': torch.zeros(3, WIDTH)}

    def reads(document: str, read: Callable[[Path], object]) -> Callable[[], object]:
        def call() -> object:
            safetensors.torch.save_file(tensors, path, metadata={'gleam_mm': document})
            return read(path)

        return call

    def model(path: Path) -> object:
        return load_model(checkpoint=path)

    for name, changes in test_building.HOSTILE.items():
        document = {**copy.deepcopy(honest), 'method': {'type': 'LoRA', 'rank': 2}}
        with contextlib.suppress(KeyError, TypeError):
            test_building.change(document, copy.deepcopy(changes))
        yield 'metadata that tests name', name, reads(json.dumps(document), model)
    for document in cases(test_adapter_files.test_metadata_of_another_shape_are_one_line):
        yield 'metadata of another shape', document[:40], reads(document, read_adapter)
    spots = list(places(honest))
    for _ in range(number):
        kind = generator.choice(list(VALUES))
        spot, value = generator.choice(spots), generator.choice(VALUES[kind])
        text = json.dumps(replaced(honest, spot, value))
        name = f'{".".join(map(str, spot))}={str(value)[:60]}'
        yield f'metadata: {kind}', name, reads(text, generator.choice((model, Predictor)))


def other_files() -> Iterator[tuple[str, Any, Any]]:
    """Checkpoints, searches, lists and pictures: kind, name, and what reads them."""
    here = Path.cwd()
    path = here / 'broken.pth'
    for name, write in test_reading.damaged(path):

        def damaged(write: Callable = write) -> object:
            if path.is_dir():
                path.rmdir()
            write()
            return read_state_dict(path)

        yield 'checkpoints', name, damaged
    for kind in ('zip', 'old', 'pickle'):
        for place in ('state_dict', 'meta', 'optimizer', 'message_hub'):

            def pickled(kind: str = kind, place: str = place) -> object:
                content = {'state_dict': {'a': torch.ones(1)}, 'meta': {}}
                content[place] = {'a': test_reading.Crafted(Path.touch, here / MARKER)}
                file = here / 'pickled.pth'
                torch.save(content, file, _use_new_zipfile_serialization=kind == 'zip')
                return read_state_dict(file)

            yield 'checkpoints', f'{kind} pickle in {place}', pickled
    for index, change in enumerate(
        cases(test_evolution.test_files_of_another_shape_are_told_in_a_line)
    ):

        def search(change: Callable = change) -> object:
            file, settings = here / 'search.json', Settings()
            file.unlink(missing_ok=True)
            write_scores(file, [], settings, {'method': 'GLoRA'})
            file.write_text(json.dumps(change(json.loads(file.read_text()))))
            return read_scores(file, settings, {'method': 'GLoRA'})

        yield 'searches', index, search
    for line, _ in cases(test_lists.test_what_is_wrong_is_told_with_file_and_line):
        yield 'lists', line, lambda line=line: test_lists.read(b'a.jpg 0\n' + line, here)
    for name, (make, _) in test_images.CASES.items():

        def picture(name: str = name, make: Callable = make) -> object:
            make(here / f'{name}.png')
            return LoadImageFromFile()({'img_path': str(here / f'{name}.png')})

        yield 'pictures', name, picture
    for shape in cases(
        test_convert.test_a_header_that_claims_other_numbers_is_refused_before_memory_is_taken
    ):

        def array(shape: str = shape) -> object:
            test_convert.crafted_array(here / 'crafted.npz', shape)
            return convert_file(here / 'crafted.npz', here / 'done.pth')

        yield 'arrays', shape, array


def databases() -> Iterator[tuple[str, Any, Any]]:
    """Studies of sweeps: kind, name, and what reads them."""
    number = 0

    def study() -> Any:
        nonlocal number
        number += 1
        begun = begin_study(str(Path(f'{number}.db').absolute()), 'sweep', test_schema.SWEEP)
        begun.register()
        return begun

    def read() -> None:
        for one in (open_study, read_results):
            one(str(Path(f'{number}.db').absolute()))

    for changes, _ in cases(test_schema.test_settings_of_another_shape):

        def settings(changes: dict = changes) -> None:
            test_schema.set_settings(study(), **changes)
            read()

        yield 'databases: settings', changes, settings
    for note, value in cases(test_schema.test_trials_of_another_shape):

        def trial(note: str = note, value: Any = value) -> None:
            begun = study()
            begun.storage.set_trial_user_attr(1, note, value)
            read()

        yield 'databases: trials', f'{note}={value}', trial


def fault(read: Callable[[], object]) -> str | None:
    """What is wrong with how a hostile file ends, or None; in a process of its own."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        with open('/proc/self/statm', encoding='utf-8') as sizes:  # noqa: PTH123
            held = int(sizes.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + BYTES, held + BYTES))
        modules = set(sys.modules)
        try:
            read()
            told = 'accepted'
        except (ImportError, OSError, RuntimeError, ValueError) as error:
            message = str(error)
            told = '' if '\n' not in message and 0 < len(message) < 700 else f'unclear: {error!r}'
            if "can't allocate" in message or 'Unable to allocate' in message:
                told = f'takes memory: {message}'
        except UserWarning as error:
            told = f'warned: {error}'
        except BaseException as error:
            told = '' if type(error).__name__ == 'UserError' else f'Traceback: {error!r}'
        if Path(MARKER).exists():
            told = 'has run something'
        elif imported := {'evil', 'this', 'antigravity'} & (set(sys.modules) - modules):
            told = f'has imported {imported}'
        os.write(theirs, told.encode('utf-8', 'replace')[:4000])
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, 'rb') as pipe:
        told = pipe.read().decode()
    status = os.waitpid(child, 0)[1]
    return f'ended by {status}' if status else told or None


def main() -> None:
    """Runs the campaign."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--files', type=int, default=300, help='how many random adapter files')
    parser.add_argument('--seed', type=int, default=0, help='decides what is in them')
    args = parser.parse_args()
    generator, tally = random.Random(args.seed), Tally()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path('evil').mkdir()
        for module in ('evil/__init__.py', 'evil/registry.py'):
            Path(module).write_text(
                f'open({str(Path(MARKER).absolute())!r}, "w").close()', encoding='utf-8'
            )
        sys.path.insert(0, folder)
        for every in (metadata_of_files(args.files, generator), other_files(), databases()):
            for kind, name, read in every:
                tally.add(kind, name, fault(read))
                Path(MARKER).unlink(missing_ok=True)
    tally.finish()


if __name__ == '__main__':
    with DefaultScope.overwrite_default_scope('gleam_mm'):
        main()
