"""The protocol of VTAB-1K in force: what a phase trains on, and that it sees nothing else.

Options are chosen without the test split. That is not left to configs: while a select training
runs, a dataset of any other split than the two of its phase refuses to load, whoever builds it.
"""

import contextlib
from collections.abc import Iterator
from copy import deepcopy
from typing import Any, NamedTuple

from mmengine.config import Config, ConfigDict
from mmengine.dataset import BaseDataset

from gleam_mm.config.datasets import datasets_in
from gleam_mm.config.keys import DATALOADERS, TEST_KEYS, VAL_KEYS
from gleam_mm.config.nested import dicts_in
from gleam_mm.datasets.folder import CustomDataset
from gleam_mm.datasets.held_out import shares
from gleam_mm.sweep.plan import SELECT


class ProtocolError(ValueError):
    """A dataset was about to be opened in a phase that it is not for."""


class Splits(NamedTuple):
    """Names of splits: what options are chosen on, and what the final models see."""

    select: str
    validate: str
    final: str
    test: str

    def training(self, phase: str) -> tuple[str, ...]:
        """The splits that a training of a phase may open, its test aside."""
        return (self.select, self.validate) if phase == SELECT else (self.final,)


PROTOCOLS = (
    Splits('train800', 'val200', 'train800val200', 'test'),  # VTAB-1K and MiniVTAB
    Splits('train', 'val', 'train', 'test'),  # few-shot FGVC has no further images for the end
)
FOLDERS = Splits('select', 'validate', 'all', 'test')
"""The parts of folders of classes: options are judged on a share of the training's folder."""

_REPEATING = ('ClassBalancedDataset', 'RepeatDataset')
"""Datasets that have pictures of another one more than once."""

SHARE = 0.2
"""How much of a training's folder options are judged on."""


def prepare(cfg: Config, phase: str, seed: int) -> Splits:
    """Makes a config that of a phase: its splits, its evaluation, and its seed.

    A select config has no test dataloader. A final one does not validate. Datasets that draw their
    shots by a seed (``shots`` and ``seed`` among their arguments) draw them by that of the job.

    Args:
        cfg: The whole config of a recipe; changed in place.
        phase: ``select`` or ``final``.
        seed: Seed of everything random.

    Returns:
        The names of the splits.

    Raises:
        ValueError: The config's datasets have no splits that the protocol knows, or hold a part of
            them out; or what options would be judged on is what is tested.
    """
    splits = _splits(cfg)
    evaluation = 'val_dataloader' if phase == SELECT and cfg.get('val_dataloader') else None
    evaluated = deepcopy(cfg.get(evaluation or 'test_dataloader'))
    if evaluated is None:
        raise ValueError(f'{cfg.filename}: a sweep needs a test_dataloader in the config')
    metric = cfg.get('val_evaluator' if evaluation else 'test_evaluator')
    if splits is FOLDERS:
        _name_parts(cfg.train_dataloader, evaluated, phase)
    else:
        _check_splits(cfg, splits, evaluated if phase == SELECT else None)
    _set_split(cfg.train_dataloader, splits.select if phase == SELECT else splits.final, seed)
    _set_split(evaluated, splits.validate if phase == SELECT else splits.test, seed)
    used, unused = (VAL_KEYS, TEST_KEYS) if phase == SELECT else (TEST_KEYS, VAL_KEYS)
    for key, value in zip(used, (evaluated, ConfigDict(), deepcopy(metric)), strict=True):
        if key != used[1] or cfg.get(key) is None:
            cfg[key] = value
    for key in unused:
        cfg[key] = None
    cfg.setdefault('randomness', ConfigDict())['seed'] = seed
    if phase == SELECT:
        check_untested(cfg, splits)
    return splits


def named_splits(cfg: Config) -> set[str]:
    """The splits that the training dataset of a config names, whatever wraps it."""
    loader = cfg.get('train_dataloader')
    parts = dicts_in(loader.dataset.to_dict()) if loader is not None else ()
    return {part['split'] for _, part in parts if 'split' in part}


def held_out(cfg: Config) -> str | None:
    """The key of the first dataset that holds a part of its pictures out; None without any."""
    for loader in DATALOADERS:
        if cfg.get(loader) is None:
            continue
        for key, part in dicts_in(cfg[loader].to_dict()):
            if shares(part.get('hold_out', 0)):
                return f'{loader}.{key}hold_out'
    return None


def check_untested(cfg: Config, splits: Splits) -> None:
    """Refuses the config of a select training that names the test split anywhere.

    Raises:
        ProtocolError: It does; the message has the key.
    """
    for key, part in dicts_in(cfg.to_dict()):
        name = _key_in(part)
        if name is not None and part[name] == splits.test:
            raise ProtocolError(
                f'{key}{name} is {splits.test!r}: options are chosen on {splits.validate!r}; the '
                'test split stays closed until the final trainings'
            )


@contextlib.contextmanager
def only(*splits: str) -> Iterator[None]:
    """Within it, no dataset of another split can be loaded, in this process and its forks.

    Args:
        *splits: The splits that may be loaded. Datasets without a ``split`` always may.

    Raises:
        ProtocolError: From within, where another one is loaded.
    """
    full_init = BaseDataset.full_init

    def checked(dataset: BaseDataset) -> None:
        split = getattr(dataset, 'part', None) or getattr(dataset, 'split', None)
        if split is not None and split not in splits:
            raise ProtocolError(
                f'{type(dataset).__name__}: the split {split!r} is closed now; this part of the '
                f'protocol may open {" and ".join(map(repr, splits))}'
            )
        full_init(dataset)

    BaseDataset.full_init = checked
    try:
        yield
    finally:
        BaseDataset.full_init = full_init


def _splits(cfg: Config) -> Splits:
    names = named_splits(cfg)
    # Of a folder beside something else, that would be trained on and judged on alike.
    if not names and all(map(_is_folder, _sources(cfg.train_dataloader))):
        return FOLDERS
    for splits in PROTOCOLS:
        if names and names <= {splits.select, splits.final}:
            return splits
    known = ' or '.join(sorted({splits.final for splits in PROTOCOLS}))
    raise ValueError(
        f'{cfg.filename}: the training dataset has the split {", ".join(sorted(names)) or "None"}; '
        f'a sweep needs datasets with a `split` that is called {known}, or folders of classes'
    )


def _check_splits(cfg: Config, splits: Splits, judged: ConfigDict | None) -> None:
    """Refuses splits that are not whole, and to judge options on what is tested."""
    if held := held_out(cfg):
        # With another split that would be a part of it alone; or, where a source takes no notice of
        # the split, the very pictures of the test.
        raise ValueError(
            f'{cfg.filename}: {held} holds a part of a split out, where a sweep takes the splits '
            f'{splits.select}, {splits.validate} and {splits.test} whole: set hold_out=0 and '
            'take_held_out=False for train_dataloader, val_dataloader and test_dataloader if the '
            'data have these splits, or keep the pictures in folders of classes'
        )
    if judged is None or cfg.get('test_dataloader') is None:
        return
    tested = [_unprepared(source) for source in _sources(cfg.test_dataloader)]
    for source in _sources(judged):
        if _key_in(source) is None and _unprepared(source) in tested:
            raise ValueError(
                f'{cfg.filename}: the {source.get("type")} of test_dataloader has no `split`, so '
                f'that options would be judged on it: give it split={splits.test!r}, or the config '
                'a val_dataloader of other pictures'
            )


def _sources(loader: ConfigDict) -> list[dict]:
    """The datasets of a data loader that wrap no others."""
    found = datasets_in(loader.to_dict()['dataset'])
    return [part for part in found if not part.get('dataset') and not part.get('datasets')]


def _unprepared(source: dict) -> dict:
    return {key: value for key, value in source.items() if key != 'pipeline'}


def _set_split(loader: ConfigDict, split: str, seed: int) -> None:
    for _, part in dicts_in(loader['dataset']):
        if (name := _key_in(part)) is not None:
            part[name] = split
            if 'shots' in part and 'seed' in part:
                part['seed'] = seed


def _is_folder(config: Any) -> bool:
    return isinstance(config, dict) and config.get('type') in ('CustomDataset', CustomDataset)


def _name_parts(train: ConfigDict, evaluated: ConfigDict, phase: str) -> None:
    """Gives folders a part, and to a selection the training's folder to be judged on."""
    if phase == SELECT:
        folders = (p for _, p in dicts_in(evaluated['dataset']) if _is_folder(p))
        pipeline = next(folders, {}).get('pipeline') or []
        for _, part in dicts_in(train['dataset']):
            if _is_folder(part):
                part['hold_out'] = [*shares(part.get('hold_out', 0)), SHARE]
        evaluated['dataset'] = _once(deepcopy(train['dataset']))
        for _, part in dicts_in(evaluated['dataset']):
            if _is_folder(part):
                part.update(pipeline=deepcopy(pipeline), test_mode=True, take_held_out=True)
    for loader in (train, evaluated):
        for _, part in dicts_in(loader['dataset']):
            if _is_folder(part):
                part['part'] = ''


def _once(dataset: ConfigDict) -> ConfigDict:
    """The config of a dataset without what has pictures of it several times, for the training."""
    kind = dataset.get('type')
    if kind in _REPEATING or getattr(kind, '__name__', '') in _REPEATING:
        return _once(dataset['dataset'])
    if dataset.get('datasets'):
        dataset['datasets'] = [_once(part) for part in dataset['datasets']]
    elif dataset.get('dataset'):
        dataset['dataset'] = _once(dataset['dataset'])
    return dataset


def _key_in(config: Any) -> str | None:
    """The argument of a dataset that says its split."""
    return next((key for key in ('part', 'split') if key in config), None)
