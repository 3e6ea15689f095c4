"""Recipes: whole experiments by name, ``<backbone>_<method>_<dataset>``.

A recipe is composed of the files in ``configs/_base_``, so that twenty methods, two dozen datasets
and five backbones need no thousand config files. A real file always wins over composing one. The
schedule is ``petl_100e``, unless there is one with the name of the dataset or of its family, which
is what comes before the first hyphen (``mini`` of ``mini-digits``).

>>> cfg = load('vit-b_gleam-l_vtab-dtd')
>>> cfg.model.petl.rank
16
"""

import os
import shutil
import textwrap
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from gleam_mm.config import keys
from gleam_mm.config.image_size import fill_image_size
from gleam_mm.config.scopes import without_scopes
from gleam_mm.config.settings import check_settings
from gleam_mm.fileio import require_new, write_bytes
from gleam_mm.messages import hint_at
from gleam_mm.shell import command

FAMILIES = ('backbones', 'methods', 'datasets')
SCHEDULE = 'petl_100e'
_CONFIGS = Path(__file__).parents[1] / '.mim' / 'configs'
ROOT_VARIABLE = 'GLEAM_CONFIGS'

# What `data_preprocessor.normalize` stands for; public PETL codes differ.
NORMALIZATIONS = {
    'imagenet': {'mean': [123.675, 116.28, 103.53], 'std': [58.395, 57.12, 57.375]},
    'half': {'mean': [127.5, 127.5, 127.5], 'std': [127.5, 127.5, 127.5]},  # -1 to 1
    'none': {'mean': [0.0, 0.0, 0.0], 'std': [255.0, 255.0, 255.0]},  # 0 to 1
    'clip': {
        'mean': [122.7709383, 116.7460125, 104.09373615],
        'std': [68.5005327, 66.6321579, 70.32316305],
    },
}


class RecipeError(ValueError):
    """A recipe or config that cannot be loaded; the message says why and what to do."""


class Recipe(NamedTuple):
    """The three names that a recipe is made of."""

    backbone: str
    method: str
    dataset: str

    def __str__(self) -> str:
        return '_'.join(self)


def config_root() -> Path:
    """The package's ``configs`` folder, or the one that ``GLEAM_CONFIGS`` names.

    The package's is ``.mim/configs``, which is a link to ``configs`` in a checkout.

    Raises:
        RecipeError: There is no such folder, or it has no ``_base_``.
    """
    if named := os.environ.get(ROOT_VARIABLE):
        root, origin = Path(named).expanduser().resolve(), f'the one that {ROOT_VARIABLE} names'
    else:
        root, origin = _CONFIGS.resolve(), "the package's"
    if not (root / '_base_').is_dir():
        raise RecipeError(
            f'there are no configs in {root} ({origin}): install GLEAM-MM again, or set '
            f'{ROOT_VARIABLE} to the configs folder of a checkout'
        )
    return root


def families() -> dict[str, dict[str, Path]]:
    """The files that recipes are composed of.

    Files in ``configs/_base_`` of the current directory join those of :func:`config_root`, and win
    over them. Names that start with an underscore are what several files share, no recipes.

    Returns:
        Family (``backbones``, ``methods``, ``datasets``) -> name -> file.
    """
    return {
        family: {
            file.stem: file
            for base in _bases()
            for file in sorted((base / family).glob('*.py'))
            if not file.stem.startswith('_')
        }
        for family in FAMILIES
    }


def parse(name: str) -> Recipe:
    """Splits the name of a recipe.

    Raises:
        RecipeError: A part is unknown. The message has the closest matches.
    """
    known = families()
    for backbone in known['backbones']:
        for method in known['methods']:
            prefix = f'{backbone}_{method}_'
            if name.startswith(prefix) and name.removeprefix(prefix) in known['datasets']:
                return Recipe(backbone, method, name.removeprefix(prefix))

    parts = name.split('_', maxsplit=2)
    if len(parts) < 3:
        raise RecipeError(
            f'unknown recipe {name!r}: a recipe is <backbone>_<method>_<dataset>, such as '
            f'vit-b_gleam-l_vtab-cifar{hint_at(name, _file_names(), 3)}. '
            f'{command("recipes")!r} lists all names'
        )
    unknown = [
        f'unknown {family.removesuffix("s")} {part!r}{hint_at(part, known[family], 3)}'
        for family, part in zip(FAMILIES, parts, strict=True)
        if part not in known[family]
    ]
    raise RecipeError(
        f'recipe {name!r}: {"; ".join(unknown)}. {command("recipes")!r} lists all names'
    )


def load(config: str | Path, options: Mapping[str, Any] | None = None) -> Config:
    """Loads a config file or composes a recipe.

    Args:
        config: A path or the name of a recipe. A file that exists wins; otherwise the name that
            :func:`name_in_configs` tells is looked for among the files in :func:`config_root`, and
            then taken for a recipe's name.
        options: Overrides such as ``{'model.petl.rank': 8}``. ``method`` is the name of a preset,
            which replaces the config's method before the others are applied, and ``strategy`` that
            of a file in ``configs/_base_/strategies``, which is added to the config.

    Returns:
        The config. Its ``filename`` is the file's, or ``<recipe>.py`` for a composed one.

    Raises:
        RecipeError: There is no such config or recipe, the file is broken, or a key is misspelt.
    """
    path = Path(config).expanduser()
    cfg = without_scopes(_read(path) if path.is_file() else _read_ours(config))
    try:
        keys.check_keys(cfg)
    except ValueError as error:
        raise RecipeError(f'{config}: {error}') from error
    _check_model(cfg, config)
    return with_options(cfg, options or {}, config)


def with_options(cfg: Config, options: Mapping[str, Any], config: str | Path) -> Config:
    """A config with overrides, whatever it was read from, and with what it leaves open filled in.

    Args:
        cfg: A config with a ``model``; left as it is.
        options: As those of :func:`load`.
        config: What messages call the config.

    Raises:
        RecipeError: An option is misspelt, or a value is none that its key takes.
    """
    cfg, options = deepcopy(cfg), deepcopy(dict(options))  # merging takes values apart
    try:
        for key in options:
            keys.check_option(cfg, key)
    except ValueError as error:
        raise RecipeError(f'{config}: {error}') from error
    if 'method' in options:
        cfg = _with_method(cfg, options.pop('method'))
    if 'strategy' in options:
        cfg.merge_from_dict(_strategy(options.pop('strategy')))
    _check_options(cfg, options)
    _place_numbers(cfg, config)  # or a name in the config would win over numbers in the options
    for key, value in options.items():  # all at once, one of a whole would drop those inside of it
        cfg.merge_from_dict({key: value})
    _place_numbers(cfg, config)
    try:
        keys.check_values(cfg.to_dict())
    except ValueError as error:
        raise RecipeError(f'{config}: {error}') from error
    # The preset is in the model by now. Left where it was, a change to it would do nothing.
    cfg.pop('method', None)
    _place_loss(cfg)
    _fill_numbers(cfg, config)
    fill_image_size(cfg)
    try:
        check_settings(cfg)
    except ValueError as error:
        raise RecipeError(f'{config}: {error}') from error
    return cfg


def name_in_configs(file: str | Path, known: Callable[[str], bool]) -> str:
    """What a file that does not exist is called among those of the configs folder.

    A bare name stands for one of them, with or without ``.py``, and so does a path in a folder
    ``configs``, from wherever it is named. Any other path means the very file: taking another one
    of its name would run what nobody has asked for.

    Args:
        file: The path or name.
        known: Whether there is one of a name, for the message.

    Raises:
        RecipeError: It is such a path.
    """
    path = Path(file)
    if path.name != str(file) and 'configs' not in path.parts[:-1]:
        ours = f'; the one that ships is called {path.stem}, without a folder'
        raise RecipeError(f'{file}: no such file{ours if known(path.stem) else ""}')
    return path.stem if path.suffix == '.py' else path.name


def compose(name: str) -> Config:
    """Composes the config of a recipe, whether or not there is a file of that name."""
    recipe = parse(name)
    text = f'{_bases_text(_base_files(recipe))}\nmodel = dict(petl=_base_.method)\n'
    cfg = Config.fromstring(text, '.py')
    return Config(cfg.to_dict(), cfg_text=cfg.text, filename=f'{recipe}.py')


def method_preset(name: str) -> dict[str, Any]:
    """The config of a method that has a file in ``configs/_base_/methods``.

    Raises:
        RecipeError: There is no such file. The message has the closest matches.
    """
    return _preset('methods', name).method.to_dict()


def backbone_preset(name: str) -> dict[str, Any]:
    """The config of a backbone that has a file in ``configs/_base_/backbones``.

    Raises:
        RecipeError: There is no such file. The message has the closest matches.
    """
    return _preset('backbones', name).model.backbone.to_dict()


def pretraining(name: str) -> tuple[str | None, str | None]:
    """What a backbone's file says of its weights.

    Returns:
        Their file, and the name in :data:`NORMALIZATIONS` of what they were trained with, each
        where it says so.

    Raises:
        RecipeError: There is no such backbone.
    """
    preset = _preset('backbones', name)
    init_cfg = preset.model.backbone.get('init_cfg') or {}
    return init_cfg.get('checkpoint'), preset.get('normalize', preset.get('pretrained_normalize'))


def export(name: str, file: str | Path) -> Path:
    """Writes a recipe as a short ``_base_`` config to edit.

    Args:
        name: The name of a recipe.
        file: Where to write, ending in ``.py``.

    Returns:
        The path of the file.

    Raises:
        FileExistsError: The file exists.
        RecipeError: The recipe is unknown, or the file does not end in ``.py``.
    """
    recipe = parse(name)
    file = Path(file).expanduser().absolute()
    if file.suffix != '.py':
        raise RecipeError(f'{file}: a config file ends in .py')
    require_new(file)
    text = f'{bases_text(name, file.parent)}\nmodel = dict(petl=_base_.method)\n'
    write_bytes(file, f'# The recipe {recipe}.\n{text}'.encode())
    return file


def bases_text(name: str, folder: Path) -> str:
    """The ``_base_`` of a recipe, as a config file in some folder has it."""
    return _bases_text(_base_text(base, folder) for base in _base_files(parse(name)))


def _base_text(base: Path, folder: Path) -> str:
    """How a config in a folder names another one, so that the file may move."""
    root = config_root()
    if not base.is_relative_to(root):
        return str(base)
    checkout = root.parent
    if root.name == 'configs' and folder.is_relative_to(checkout):  # it may move with the checkout
        return os.path.relpath(base, folder)
    # Wherever it goes, the package's own are found.
    own = root == _CONFIGS.resolve()
    return f'gleam_mm::{base.relative_to(root)}' if own else str(base)


def listing() -> str:
    """All backbones, methods and datasets, and the config files, as text."""
    columns = max(40, shutil.get_terminal_size().columns)
    sections = [(family, list(files)) for family, files in families().items()]
    sections.append(('config files', _file_names()))
    return '\n\n'.join(
        f'{title} ({len(names)})\n'
        + textwrap.fill(
            '  '.join(names),
            width=columns,
            initial_indent='  ',
            subsequent_indent='  ',
            break_on_hyphens=False,
            break_long_words=False,
        )
        for title, names in sections
    )


def name_of(cfg: Config) -> str:
    """The name of a config: the stem of its file, which for a recipe is the recipe's name."""
    return Path(cfg.filename).stem


def _preset(family: str, name: str) -> Config:
    presets, kind = families()[family], family.removesuffix('s')
    if name not in presets:
        raise RecipeError(
            f'{kind}={name}: unknown {kind}{hint_at(str(name), presets, 3)}; '
            f'{command("recipes")!r} lists all names'
        )
    return _read(presets[name])


def _base_files(recipe: Recipe) -> list[Path]:
    known = families()
    return [
        *(known[family][part] for family, part in zip(FAMILIES, recipe, strict=True)),
        _schedule(recipe.dataset),
        config_root() / '_base_' / 'default_runtime.py',
    ]


def _schedule(dataset: str) -> Path:
    """The schedule with the name of the dataset or its family, or else the one for all datasets."""
    for name in (dataset, dataset.partition('-')[0]):
        for base in reversed(_bases()):
            file = base / 'schedules' / f'{name}.py'
            if file.is_file():
                return file
    return config_root() / '_base_' / 'schedules' / f'{SCHEDULE}.py'


def _bases() -> list[Path]:
    """The ``_base_`` folders; later ones win."""
    return [config_root() / '_base_', Path.cwd() / 'configs' / '_base_']


def _bases_text(bases: Iterable[str | Path]) -> str:
    lines = ''.join(f'    {str(base)!r},\n' for base in bases)
    return f'_base_ = [\n{lines}]\n'


def _read(path: Path) -> Config:
    try:
        return Config.fromfile(path)
    except Exception as error:  # a config is a program: anything can happen in it
        reason = error.args[0] if isinstance(error, KeyError) and error.args else error
        if 'inheritance chain' in str(error):
            raise RecipeError(
                f'{path}: a config with _base_ cannot inherit from a new-style one, which imports: '
                'write it in the new style too, `with read_base(): from .base import *`, or give '
                'it a _base_ that imports nothing'
            ) from error
        raise RecipeError(f'{path}: {type(error).__name__}: {reason}') from error


def _read_ours(config: str | Path) -> Config:
    """The config file in the configs folder, or else the recipe, that has the name of a config."""
    name = name_in_configs(config, _is_ours)
    if file := _find_file(name):
        return _read(file)
    try:
        recipe = parse(name)
    except RecipeError as error:
        if name == str(config):
            raise
        raise RecipeError(f'{config} does not exist, and its name is no recipe: {error}') from None
    return compose(str(recipe))


def _is_ours(name: str) -> bool:
    try:
        return name in _file_names() or bool(parse(name))
    except RecipeError:
        return False


def _find_file(name: str) -> Path | None:
    """The config file of that stem in the configs folder, outside of ``_base_``."""
    found = [file for file in _files() if file.stem == name]
    if len(found) > 1:
        listed = ', '.join(str(file) for file in found)
        raise RecipeError(f'{name!r} names several config files, give the path of one: {listed}')
    return found[0] if found else None


def _files() -> list[Path]:
    root = config_root()
    others = {'_base_', 'sweeps'}
    return sorted(f for f in root.rglob('*.py') if not others & {*f.relative_to(root).parts})


def _file_names() -> list[str]:
    return [file.stem for file in _files()]


def _with_method(cfg: Config, method: Any) -> Config:
    """The config with another preset for its method, under a name of its own."""
    preset = method_preset(method)
    path = Path(cfg.filename)
    try:
        name = str(parse(path.stem)._replace(method=method))
    except RecipeError:
        name = f'{path.stem}-{method}'
    changed = cfg.to_dict()
    changed['method'] = changed['model']['petl'] = preset
    return Config(changed, cfg_text=cfg.text, filename=str(path.with_stem(name)))


def _strategy(name: Any) -> dict[str, Any]:
    """What a file of ``configs/_base_/strategies`` says."""
    files = {file.stem: file for base in _bases() for file in base.glob('strategies/*.py')}
    if name not in files:
        raise RecipeError(
            f'strategy={name}: unknown strategy; there is {", ".join(sorted(files))}. Without one, '
            'every process has the whole model (DDP)'
        )
    return _read(files[name]).to_dict()


def _check_options(cfg: Config, options: Mapping[str, Any]) -> None:
    for key in options:
        if key.split('.')[0] == 'method' and 'method' in cfg:
            raise RecipeError(
                f"option {key!r}: 'method' is only the preset; change 'model.petl{key[6:]}', or "
                'name another one: method=lora'
            )


def _check_model(cfg: Config, config: str | Path) -> None:
    if 'model' not in cfg:
        raise RecipeError(f"{config}: the config has no 'model'")
    if 'method' in cfg and 'petl' not in cfg.model:
        raise RecipeError(
            f"{config}: the method never reaches the model; add 'model = dict(petl=_base_.method)'"
        )


def _place_loss(cfg: Config) -> None:
    """Puts the loss that a schedule asks for into the head; one that is there already wins."""
    loss = cfg.pop('head_loss', None)
    head = cfg.model.get('head')
    if loss is not None and head is not None and 'type' not in head.get('loss', {}):
        head.loss = {**loss, **head.get('loss', {})}


def _place_numbers(cfg: Config, config: str | Path) -> None:
    """Replaces ``data_preprocessor.normalize`` by the mean and std that it names."""
    preprocessor = cfg.get('data_preprocessor') or {}
    if (name := preprocessor.pop('normalize', None)) is not None:
        preprocessor.update(_numbers(name, 'data_preprocessor.normalize', config))


def _fill_numbers(cfg: Config, config: str | Path) -> None:
    """Fills in the mean and std that are not set, where a dataset has a ``default_normalize``.

    What the backbone was pretrained with (``normalize``, at the top) takes its place;
    ``pretrained_normalize`` is a record alone.
    """
    preprocessor = cfg.get('data_preprocessor') or {}
    cfg.pop('pretrained_normalize', None)
    pretrained = cfg.pop('normalize', None)
    default = preprocessor.pop('default_normalize', None)
    if default is None:
        return
    told, name = 'normalize', pretrained
    if pretrained is None:
        told, name = 'data_preprocessor.default_normalize', default
    for key, numbers in _numbers(name, told, config).items():
        preprocessor.setdefault(key, numbers)


def _numbers(name: Any, key: str, config: str | Path) -> dict[str, list[float]]:
    if name not in NORMALIZATIONS:
        raise RecipeError(
            f'{config}: {key}={name!r} is none of {", ".join(NORMALIZATIONS)}; for other numbers '
            'set data_preprocessor.mean and .std'
        )
    return NORMALIZATIONS[name]
