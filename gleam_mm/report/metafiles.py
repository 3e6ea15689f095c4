"""The zoo's index and metafile, made of the adapters and of the benchmarks' records.

The metafile has MMPretrain's form. A model in it is an adapter of the zoo, with its weights; or a
preset on a backbone, whose results are means over the seeds of a recorded study.
"""

import json
import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from mmengine.config import Config

from gleam_mm.config import recipes
from gleam_mm.errors import UserError
from gleam_mm.fileio import write_bytes
from gleam_mm.inference import zoo
from gleam_mm.report.suites import suites_of
from gleam_mm.sweep.plan import FINAL
from gleam_mm.sweep.record import CSV, STUDIES, Record, read

METAFILE = 'metafile.yml'
_HEAD = '# Written by `python tools/report.py --metafiles`; do not edit it by hand.\n'
_ELSEWHERE = ('GLEAM',)  # collections that configs/*/metafile.yml have
_RECORDS = (
    ('benchmarks/minivtab', 'configs/sweeps'),
    ('benchmarks/real', 'benchmarks/real/configs/sweeps'),
)
"""Folders with a record, and where the files of its sweeps are."""


def write(root: Path | None = None) -> list[Path]:
    """Writes the index and the metafile into ``zoo`` of a checkout.

    Args:
        root: The checkout; by default that of this package.

    Returns:
        The files.

    Raises:
        UserError: This is no checkout, or a record is damaged.
        CheckpointError: An adapter is damaged, or lacks its config or its metrics.
    """
    root = root or recipes.config_root().parent
    texts = build(root)
    for name, text in texts.items():
        write_bytes(root / name, text.encode())
    return [root / name for name in texts]


def build(root: Path) -> dict[str, str]:
    """The texts of the index and the metafile by their paths in a checkout.

    Raises:
        UserError: This is no checkout, or a record is damaged.
        CheckpointError: An adapter is damaged, or lacks its config or its metrics.
    """
    if not all((root / folder / CSV).is_file() for folder, _ in _RECORDS):
        raise UserError(f'--metafiles: {root} is no checkout, which has benchmarks and zoo')
    shipped = zoo.scan(root / 'zoo')
    models = [_of_adapter(entry) for entry in shipped]
    for folder, sweeps in _RECORDS:
        models += _of_record(root / folder, root / sweeps)
    document = {'Collections': list(_collections(models)), 'Models': models}
    text = yaml.safe_dump(document, sort_keys=False, width=100)
    return {f'zoo/{zoo.INDEX}': zoo.index_of(shipped), f'zoo/{METAFILE}': _HEAD + text}


def _of_adapter(entry: zoo.Entry) -> dict[str, Any]:
    return {
        'Name': entry.name,
        'In Collection': _collection(entry.method),
        'Metadata': {
            'Parameters': entry.parameters,
            'Training Data': _title(entry.dataset),
            'Epochs': entry.epochs,
            'Backbone Fingerprint': entry.backbone_fingerprint,
            'SHA256': entry.sha256,
        },
        'Results': [_result(entry.dataset, entry.headline('test'))],
        'Weights': f'zoo/{entry.adapter}',
        'Config': f'zoo/{entry.config}',
    }


def _of_record(folder: Path, sweeps: Path) -> Iterator[dict[str, Any]]:
    """The models of a record: presets as they are, not variants of a study's own."""
    notes = json.loads((folder / STUDIES).read_bytes())
    presets = recipes.families()['methods']
    gathered: dict[tuple[str, str], list[Record]] = {}
    for row in read(folder / CSV):
        if row.phase == FINAL and row.accuracy is not None and row.method in presets:
            gathered.setdefault((row.study, row.method), []).append(row)
    for (study, method), rows in gathered.items():
        variants = Config.fromfile(sweeps / f'{study}.py').get('variants') or {}
        if any('.' not in option for option in variants.get(method, {})):
            continue  # the study has another method under the preset's name
        note = notes[study]
        by_task: dict[str, list[float]] = {}
        for row in rows:
            by_task.setdefault(row.dataset, []).append(row.accuracy)
        yield {
            'Name': f'{note["backbone"]}_{method}_{study}',
            'In Collection': _collection(method),
            'Metadata': {
                'Parameters': max(row.parameters for row in rows),
                'Epochs': note['epochs'],
                'Batch Size': note['batch_size'],
                'Seeds': min(map(len, by_task.values())),
                'Study': f'{study} at {note["commit"]}',
            },
            'Results': [
                _result(dataset, statistics.fmean(found)) for dataset, found in by_task.items()
            ],
            'Weights': None,
            'Config': f'configs/_base_/methods/{method}.py',
        }


def _result(dataset: str, accuracy: float) -> dict[str, Any]:
    return {
        'Task': 'Image Classification',
        'Dataset': _title(dataset),
        'Metrics': {'Top 1 Accuracy': round(accuracy, 2)},
    }


def _title(dataset: str) -> str:
    (suite,) = suites_of([dataset])
    return dataset if suite.key == 'other' else f'{suite.name} {suite.tasks[dataset]}'


def _collection(method: str) -> str:
    return recipes.method_preset(method)['type']


def _collections(models: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for name in sorted({model['In Collection'] for model in models} - {*_ELSEWHERE}):
        yield {
            'Name': name,
            'Metadata': {
                'Training Techniques': ['AdamW', 'Parameter-efficient transfer learning'],
                'Architecture': ['Vision Transformer'],
            },
            'README': 'docs/methods.md',
        }
