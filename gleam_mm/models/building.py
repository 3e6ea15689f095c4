"""Models from configs and files: the one way in for everything that is no training.

A config is the user's own program, and may name anything. What a *file* says is built of components
that are registered already, of a closed list of kinds, with arguments that their classes have;
nothing is imported by name, and nothing else is read than the weights of the backbone. A component
of the user's own package takes part once the user's config or program has imported it.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import Tensor

from gleam_mm.checkpoint import CheckpointError, load_from_local, read_adapter, resolve_path
from gleam_mm.config import recipes
from gleam_mm.models.budget import Budget
from gleam_mm.models.classifier import PETLClassifier
from gleam_mm.models.parts import KINDS, checked_part, is_pretrained
from gleam_mm.registry import MODELS, scope_of

_ORIGIN = 'described_by'
"""The key of a config with the file that it comes from."""


def load_model(
    config: str | Path | Config | None = None,
    checkpoint: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> PETLClassifier:
    """Builds a model and loads what was trained of it.

    Args:
        config: A config, its file or the name of a recipe. None takes what the metadata of an
            adapter file say, of which only registered components are built.
        checkpoint: An adapter file or a ``.pth`` checkpoint. None leaves the method at its start.
        options: Overrides of the config, such as ``{'model.petl.rank': 8}``.

    Returns:
        The model, in evaluation mode on the CPU.

    Raises:
        FileNotFoundError: The checkpoint, or the weights of the backbone, do not exist.
        CheckpointError: The checkpoint is damaged, does not fit the config, or describes what is
            not built from a file.
        ValueError: The config has no :class:`~gleam_mm.models.PETLClassifier`, an option is
            misspelt, or neither config nor checkpoint is given.
    """
    if config is not None:
        cfg = config if isinstance(config, Config) else recipes.load(config)
    elif checkpoint is not None:
        cfg = config_of(checkpoint)
    else:
        raise ValueError('give a config, an adapter file, or both')
    if options:
        whose = checkpoint if config is None else cfg.filename
        cfg = recipes.with_options(cfg, options, str(whose))
    if checkpoint is None:
        return build_model(cfg)
    tensors = read_trained(checkpoint)
    model = build_model(cfg, tensors)
    load_trained(model, tensors, checkpoint)
    return model


def read_trained(checkpoint: str | Path) -> dict[str, Tensor]:
    """Reads the state dict of a classifier from an adapter file or a ``.pth`` checkpoint.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It is damaged, or no checkpoint of a training.
    """
    content = load_from_local(str(checkpoint))
    if 'state_dict' not in content:
        raise CheckpointError(
            f'{checkpoint}: no checkpoint of a training, for it has no state_dict'
        )
    return dict(content['state_dict'])


def build_model(cfg: Config, tensors: Mapping[str, Tensor] | None = None) -> PETLClassifier:
    """Builds the classifier of a config, with the method at its start and in evaluation mode.

    Args:
        cfg: The config; left as it is.
        tensors: A state dict that will be loaded, which tells the number of classes.

    Raises:
        FileNotFoundError: The weights of the backbone do not exist.
        ValueError: ``model.type`` is no PETLClassifier.
    """
    described = cfg.model.to_dict()
    described.pop('teacher', None)  # which only a training has
    if cfg.get('data_preprocessor') is not None:
        described.setdefault('data_preprocessor', cfg.data_preprocessor.to_dict())
    if tensors is not None and 'petl' in described:
        described['probe'] = False  # it was trained: whether it should be is no question any more
    if tensors is not None and 'head.fc.weight' in tensors and described.get('head') is not None:
        described['head']['num_classes'] = len(tensors['head.fc.weight'])
    try:
        with scope_of(cfg), _budget(described, tensors) if _ORIGIN in cfg else nullcontext():
            model = MODELS.build(described)
    except Exception as error:
        if _ORIGIN not in cfg:
            raise
        raise _refusal(cfg[_ORIGIN], str(error).partition('\n')[0]) from error
    if not isinstance(model, PETLClassifier):
        raise ValueError(f'{cfg.filename}: model.type is no PETLClassifier')
    model.eval()
    return model


def _budget(described: Mapping[str, Any], tensors: Mapping[str, Tensor] | None) -> Budget:
    """How many numbers a model may take that a file describes, by those that there are of it."""
    numbers = sum(tensor.numel() for tensor in (tensors or {}).values())
    init_cfg = described['backbone'].get('init_cfg')
    if is_pretrained(init_cfg):
        path = resolve_path(init_cfg['checkpoint'])
        numbers += path.stat().st_size if path.is_file() else 0
    return Budget.for_weights(numbers)


def load_trained(
    model: PETLClassifier, tensors: Mapping[str, Tensor], checkpoint: str | Path
) -> None:
    """Loads a state dict, strictly.

    Raises:
        CheckpointError: It does not fit; the message begins with the name of the checkpoint.
    """
    try:
        model.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise CheckpointError(f'{checkpoint}: {error}') from error


def config_of(checkpoint: str | Path) -> Config:
    """The config of the model that an adapter file describes, after it was checked.

    Args:
        checkpoint: The adapter file.

    Returns:
        A config with ``model`` and ``data_preprocessor``.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It is damaged or no adapter file, lacks a part, or describes something
            that is not built from a file. The message names file and key.
    """
    path = resolve_path(checkpoint)
    if path.suffix != '.safetensors':
        raise CheckpointError(
            f'{checkpoint}: only an adapter file describes its model; give the config as well'
        )
    _, metadata = read_adapter(path)
    return described_config(metadata, checkpoint)


def described_config(metadata: Mapping[str, Any], checkpoint: str | Path) -> Config:
    """The config of the model that an adapter's metadata describe, after it was checked.

    Args:
        metadata: What :func:`~gleam_mm.checkpoint.read_adapter` gave.
        checkpoint: The adapter file that they come from.

    Returns:
        As :func:`config_of`.

    Raises:
        CheckpointError: As :func:`config_of`.
    """
    lacking = [part for part in ('method', 'backbone', 'head') if not metadata.get(part)]
    if lacking:
        raise CheckpointError(
            f'{checkpoint}: its metadata lack the {" and the ".join(lacking)}; give the config as '
            'well'
        )
    try:
        parts = {part: checked_part(part, metadata.get(part)) for part in KINDS}
    except (CheckpointError, RecursionError) as error:
        reason = 'nested too deeply' if isinstance(error, RecursionError) else error
        raise _refusal(checkpoint, reason) from error
    preprocessor = parts.pop('data_preprocessor')
    model = dict(type='PETLClassifier', petl=parts.pop('method'), **parts)
    described = dict(default_scope='gleam_mm', model=model, data_preprocessor=preprocessor)
    described[_ORIGIN] = str(checkpoint)
    # Without a text, MMEngine would read the file.
    name = f'{resolve_path(checkpoint).resolve().parent.name}.py'
    return Config(described, cfg_text=f'# of {checkpoint}', filename=name)


def _refusal(checkpoint: str | Path, reason: object) -> CheckpointError:
    told = str(reason)[:400]  # a key may be as long as somebody likes
    return CheckpointError(
        f'{checkpoint}: its metadata are not built: {told}. If you trust its source, give the '
        'config as well'
    )
