"""Tuned values as small config files that ``tools/train.py`` runs."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mmengine.config import Config

from gleam_mm.config import recipes
from gleam_mm.errors import UserError
from gleam_mm.fileio import write_bytes
from gleam_mm.sweep import training
from gleam_mm.sweep.cells import Cell, best_options, best_point
from gleam_mm.sweep.plan import FINAL, SELECT, Job, options_text
from gleam_mm.sweep.study import SweepStudy


def export(study: SweepStudy, folder: Path) -> tuple[list[Path], list[str]]:
    """Writes a config for every method and dataset whose options are chosen.

    It is the config of the final training: the recipe by ``_base_``, and what the sweep changed.
    A method without a grid or options of its own needs none: that is its recipe.

    Args:
        study: The sweep.
        folder: Where to write ``<backbone>_<method or variant>_<dataset>.py``.

    Returns:
        The files, and the methods and datasets that are not chosen yet.

    Raises:
        UserError: A file exists and says something else, there is nothing to write, or a file could
            not say what the sweep changed.
    """
    study.check_options()
    sweep = study.sweep
    selection: dict[tuple[str, str], list[Cell]] = {pair: [] for pair in sweep.pairs()}
    for cell in study.cells():
        if cell.job.phase == SELECT:
            selection[cell.job.method, cell.job.dataset].append(cell)
    texts, missing = {}, []
    for (method, dataset), cells in selection.items():
        name = f'{sweep.backbone}_{method}_{dataset}'
        options = best_options(cells)
        if options is None:
            missing.append(f'{method} on {dataset}')
        elif options or sweep.variant(method).options:
            job = Job(FINAL, method, dataset, sweep.seeds[0], options)
            final = _seedless(training.make_config(sweep, job)[0])
            with TemporaryDirectory() as scratch:
                file = Path(scratch) / f'{name}.py'
                file.write_text(_text(study, job, cells, final, file.parent), encoding='utf-8')
                _check(study, file, final)
            texts[name] = _text(study, job, cells, final, folder.absolute())
    if not texts:
        reason = 'it has neither a grid nor variants'
        if missing:
            reason = f'not chosen yet: {", ".join(missing)}'
        raise UserError(f'{study.name}: no tuned values to export; {reason}')
    files = {folder.absolute() / f'{name}.py': text for name, text in texts.items()}
    for file, text in files.items():
        if file.exists() and file.read_text() != text:
            raise UserError(f'{file} exists already and differs: name another folder')
    for file, text in files.items():
        write_bytes(file, text.encode())
    return list(files), missing


def _text(
    study: SweepStudy, job: Job, cells: Sequence[Cell], final: dict[str, Any], folder: Path
) -> str:
    name = study.sweep.recipe(job.method, job.dataset)
    # What the bases give: a config file of the recipe's name may say more.
    recipe = _seedless(recipes.with_options(recipes.compose(name), {}, name))
    changes = _changes(recipe, final)
    changes.get('model', {}).pop('petl', None)
    model = [f'petl={_method(recipe["model"]["petl"], final["model"]["petl"])}']
    model += [f'{key}={_literal(value)}' for key, value in changes.pop('model', {}).items()]
    lines = [
        *_origin(study, job, cells),
        recipes.bases_text(name, folder),
        f'model = dict({", ".join(model)})',
    ]
    lines += [f'{key} = {_literal(value)}' for key, value in changes.items()]
    return '\n'.join(lines) + '\n'


def _method(preset: Any, method: Any) -> str:
    """A method as the preset with other arguments, each whole: nothing is merged into a call."""
    if method == preset:
        return '_base_.method'
    changes = _changes({'petl': preset}, {'petl': method})['petl']
    if not isinstance(changes, dict) or '_delete_' in changes:
        return _literal(method)
    return f'dict(_base_.method{"".join(f", {key}={_literal(method[key])}" for key in changes)})'


def _check(study: SweepStudy, file: Path, final: dict[str, Any]) -> None:
    """Refuses a file that would train something else than the final training."""
    written = _seedless(recipes.load(file))
    keys = [key for key in {**final, **written} if final.get(key) != written.get(key)]
    if keys:
        raise UserError(
            f'{file.stem}: a file cannot say what the sweep {study.name!r} changed in '
            f'{", ".join(keys)}; train its recipe with the options of the sweep'
        )


def _seedless(cfg: Config) -> dict[str, Any]:
    """What a config says, the seed of everything random aside."""
    config = cfg.to_dict()
    config['randomness'] = {**(config.get('randomness') or {}), 'seed': None}
    return config


def _origin(study: SweepStudy, job: Job, cells: Sequence[Cell]) -> list[str]:
    end = 'Trains on all images for training and tests once.'
    if not cells:
        return [f'# {job.method} of the sweep {study.name!r}. {end}']
    best, points = best_point(cells).accuracy, study.sweep.points(job.method)
    return [
        f'# {options_text(job.options)}: {best:.2f} % on the validation split, the best of '
        f'{len(points)} points that',
        f'# the sweep {study.name!r} tried. {end}',
    ]


def _changes(old: dict, new: dict) -> dict[str, Any]:
    """What must be merged into one config to get another."""
    changes = {}
    for key, value in new.items():
        if key not in old:
            changes[key] = value
        elif (
            isinstance(value, dict)
            and isinstance(old[key], dict)
            and old[key].keys() <= value.keys()
        ):
            if inner := _changes(old[key], value):
                changes[key] = inner
        elif value != old[key]:
            changes[key] = {**value, '_delete_': True} if isinstance(value, dict) else value
    return changes


def _literal(value: Any) -> str:
    """A value as configs are written."""
    if isinstance(value, dict) and all(str(key).isidentifier() for key in value):
        return f'dict({", ".join(f"{key}={_literal(inner)}" for key, inner in value.items())})'
    if isinstance(value, list):
        items = [_literal(item) for item in value]
        line = f'[{", ".join(items)}]'
        return line if len(line) < 80 else '[\n' + ''.join(f'    {item},\n' for item in items) + ']'
    return repr(value)
