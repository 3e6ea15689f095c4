"""Methods on models that are no :class:`~gleam_mm.models.PETLClassifier`, for any training loop."""

import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gleam_mm.checkpoint import CheckpointError, fingerprint, read_adapter, save_adapter
from gleam_mm.checkpoint.packing import without_scales
from gleam_mm.checkpoint.schema import PRECISIONS
from gleam_mm.config import recipes
from gleam_mm.layouts.wrappers import inside
from gleam_mm.messages import listed, shown
from gleam_mm.models import description, library, timm_models
from gleam_mm.models.budget import Budget
from gleam_mm.models.layers import Layers
from gleam_mm.models.own_classifier import classifiers, outputs, warn_of_unknown
from gleam_mm.models.parts import checked_part, require_told
from gleam_mm.models.statistics import Stillness, all_learn, learning_statistics, still
from gleam_mm.models.trained import Trained
from gleam_mm.petl import PETLMethod
from gleam_mm.petl.bits import packed_matrices
from gleam_mm.petl.building import build_method
from gleam_mm.registry import own_scope

NAME = 'petl'
"""The child of a model that its method is: an optimizer over the model's parameters trains it."""

_CONFIG = '_petl_config'
_LEARNED = '_petl_learned'
"""What was to learn before a method was attached: the names of parameters -> whether."""

_STILL = '_petl_still'
"""The norms whose statistics are frozen as long as a method is attached."""

_WATCH = '_petl_watch'
"""The handles of what keeps state dicts of merged and of unmerged weights apart."""

_MERGED = 'petl_merged'
"""In the metadata of a state dict: whether the method was merged into its weights."""

_MERGED_KEY = f'{NAME}.merged'
"""In a state dict of merged weights itself, for files and copies of it that have no metadata."""

_LAYERS = '_petl_layers'
"""What tells timm's ``layer_decay`` the layers of the method, where the model tells its own."""

_TRAINED = '_petl_trained'
"""What learns while a method is attached, which is known where all of the model is frozen then."""

_Model = TypeVar('_Model', bound=nn.Module)

Method = str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]]


def attach(
    model: nn.Module,
    method: Method,
    adapters: Mapping[str, str | Path] | None = None,
    recompute: bool = True,
    **options: Any,
) -> PETLMethod:
    """Attaches a method to a model, and freezes all else but the model's own classifier.

    The method becomes the child ``petl`` of the model, so that ``model.parameters()``,
    ``model.to()`` and ``model.state_dict()`` have it. What is to be trained has ``requires_grad``.
    The classifier is what timm's ``get_classifier()`` says, ``classifier`` of transformers' models
    (two of a DeiT with a teacher), or ``heads`` or ``head`` of torchvision's. A frozen BatchNorm
    stays in evaluation as long as the method is there, for its running statistics belong to the
    frozen weights.

    The method's parameters are of the type that most of the model's weights are of, for
    computations in ``torch.bfloat16`` as well. ``petl.float()`` keeps them in 32 bits, for a loop
    that runs the model under ``torch.autocast``.

    Args:
        model: A transformer of timm, or a backbone of any class that has a layout; to be wrapped by
            torch.compile or DataParallel afterwards.
        method: The name of a preset, such as ``'gleam-l'``, or a config, such as
            ``dict(type='LoRA', rank=4)``; or a list of them, which act together.
        adapters: Files of trained adapters by name, of which a ``Compose``, an ``AdapterFusion``,
            an ``Arrow`` or an ``EigenLoRA`` is made: what :func:`save` has written of this model.
        recompute: Whether what the method reads is computed again for its gradients where it can
            be, instead of kept, see :meth:`gleam_mm.petl.PETLMethod.attach`.
        **options: Options of the method instead of the preset's: ``rank=8``.

    Returns:
        The method.

    Raises:
        RecipeError: There is no such preset.
        RuntimeError: The model has a method already.
        TypeError: ``model`` or ``method`` is none, or ``options`` are given for several methods.
        ValueError: There is no such type of methods, or the method does not fit the model or has an
            option that no file may have. The model is as it was.
        CheckpointError: An adapter is damaged, does not fit, or belongs to another model. The model
            is as it was.

    Warns:
        UserWarning: A classifier of transformers or torchvision has its last layer elsewhere.

    Examples:
        >>> model = timm.create_model('vit_base_patch16_224', pretrained=True, num_classes=37)
        >>> gleam_mm.attach(model, 'gleam-l')
        >>> trained = [p for p in model.parameters() if p.requires_grad]
        >>> optimizer = torch.optim.AdamW(trained, lr=1e-3)
    """
    require_free(model)
    learned = {name: p.requires_grad for name, p in model.named_parameters()}
    config = _config_of(method, options)
    taken = library.read(library.files_by_name(adapters))
    if taken:
        config = library.configured(config, taken)
    with own_scope():
        petl = build_method(config)
    described = description.of_parts(method=config)['method']
    require_told(described)
    with library.budget(taken, model):
        petl.attach(model, probe=True, recompute=recompute)
    try:
        if taken:
            # A file may have been saved with the classifier frozen.
            fingerprints = [frozen_fingerprint(model, names) for names in (_in_heads(model), ())]
            library.hand_over(taken, petl, *fingerprints)
        parameter = next(model.parameters(), None)
        if parameter is not None:
            petl.to(parameter.device, _precision_of(model))
        petl.train(model.training)  # a part that is compiled by itself does not set it
        model.requires_grad_(False)
        warn_of_unknown(model, stacklevel=2)
        for head in classifiers(model):
            head.requires_grad_(True)
        for _, trained in petl.trainable_parameters():
            trained.requires_grad_(True)
        setattr(model, NAME, petl)
        setattr(model, _CONFIG, described)
        setattr(model, _LEARNED, learned)
        setattr(model, _STILL, still(model))
        watches = (
            model.register_state_dict_post_hook(_tell_if_merged),
            model.register_load_state_dict_pre_hook(_refuse_merged),
        )
        setattr(model, _WATCH, watches)
        if hasattr(type(model), 'group_matcher'):
            setattr(model, _LAYERS, Layers(model, petl))
        remember_trained(model)
    except BaseException:  # such as a warning, where those are errors
        _take_off(model, petl, learned)
        raise
    return petl


def detach(model: _Model) -> _Model:
    """Takes the method off a model, whose parameters learn again as they did before it came.

    Args:
        model: The model, or what torch.compile or DataParallel have made of it.

    Returns:
        The very same model.

    Raises:
        RuntimeError: :func:`attach` has attached none.
        TypeError: ``model`` is none.
    """
    bare = unwrapped(model)
    _take_off(bare, method_of(model), getattr(bare, _LEARNED))
    return model


def _take_off(model: nn.Module, petl: PETLMethod, learned: Mapping[str, bool]) -> None:
    """Undoes :func:`attach`, as far as it came."""
    petl.detach()
    stillness: Stillness | None = vars(model).pop(_STILL, None)
    if stillness is not None:
        stillness.remove()
    watches: tuple[RemovableHandle, ...] = vars(model).pop(_WATCH, ())
    for watch in watches:
        watch.remove()
    layers: Layers | None = vars(model).pop(_LAYERS, None)
    if layers is not None:
        layers.remove()
    model._modules.pop(NAME, None)
    for name in (_CONFIG, _LEARNED, _TRAINED):
        vars(model).pop(name, None)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(learned.get(name, parameter.requires_grad))  # or came afterwards


def _tell_if_merged(
    model: nn.Module, state_dict: dict[str, Tensor], prefix: str, local_metadata: dict[str, Any]
) -> None:
    """Saving: says of the weights in a state dict whether the method is in them already."""
    petl = getattr(model, NAME, None)
    local_metadata[_MERGED] = merged = petl is not None and petl.merged
    if merged:
        state_dict[prefix + _MERGED_KEY] = torch.tensor(True)


def _refuse_merged(
    model: nn.Module,
    state_dict: Mapping[str, Tensor],
    prefix: str,
    local_metadata: Mapping[str, Any],
    *_: object,
) -> None:
    """Loading: weights where a merged method is would be without it, merged ones have it twice."""
    petl = getattr(model, NAME, None)
    merged = local_metadata.get(_MERGED) or prefix + _MERGED_KEY in state_dict
    if petl is None or not (petl.merged or merged):
        return
    within = tuple(
        f'{prefix}{site.path}.' for member in petl.members() for site in member.sites.values()
    )
    names = [name for name in state_dict if name.startswith(within)]
    if names and petl.merged:
        raise RuntimeError(
            f'the method is merged into the weights of this {type(model).__name__}, and '
            f'{min(names)} would be loaded in the place of one: call petl.unmerge() before loading'
        )
    if names:
        raise RuntimeError(
            f'the method was merged into {min(names)} when this state dict was taken, and would '
            f'act twice in this {type(model).__name__}: load it into a model without a method '
            '(gleam_mm.detach, and strict=False for the keys that begin with '
            f'{NAME!r}), or take it again after petl.unmerge()'
        )


def save(
    model: nn.Module,
    path: str | Path,
    classes: Sequence[str] | None = None,
    data_config: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Saves what was trained of a model with a method, and what it belongs to.

    The file has what the method trains, and whatever else has ``requires_grad``: the classifier,
    unless you froze it, and what you let be trained beside; the fingerprint of all other
    parameters, which it does not have; the method's config; and of a model of timm, the name and
    the preprocessing, so that :class:`gleam_mm.Predictor` needs nothing else but the published
    weights.

    A model of which nothing has ``requires_grad`` any more, for inference or as timm's
    ``ModelEma`` freezes its average, is saved with what was trained before: by the time of
    :func:`attach`, :func:`load`, the last saving, or the copy that the average was made of. What
    you let be trained since is not known any more: save such a model before you freeze it. Let
    ``ModelEmaV3`` average: ``ModelEma`` and ``ModelEmaV2`` round frozen weights as well, so that
    the file would belong to no others.

    Args:
        model: The model, or what torch.compile or DataParallel have made of it.
        path: The ``.safetensors`` file; replaced if it exists.
        classes: Names of the classes.
        data_config: How pictures were prepared, in timm's words, where it was not as
            ``timm.data.resolve_model_data_config(model)`` says: ``dict(crop_pct=1.0)``.
        options: Further options that ``timm.create_model`` was called with.

    Raises:
        RuntimeError: The model has no method, or the method is merged.
        TypeError: ``model`` is none.
        ValueError: ``classes`` is no list of names, or their number is not that of the classifier,
            or ``data_config`` says something that timm has no word for or a size of images that the
            model does not take, or the file has another suffix.

    Warns:
        UserWarning: The file will not say how to build its model, or a name is that of two classes.
    """
    names = None if classes is None else _names(classes)
    model = unwrapped(model)
    petl = method_of(model)
    if petl.merged:
        raise RuntimeError('the method is merged into the model: call petl.unmerge() before saving')
    told = outputs(model)
    if names is not None and told is not None and len(names) != told:
        raise ValueError(f'classes has {len(names)} names, but the model has {told} outputs')
    state = model.state_dict()
    trained = _saved_names(model)
    metadata: dict[str, Any] = {
        'method': getattr(model, _CONFIG),
        'model': None,
        'classes': names,
        'backbone_fingerprint': fingerprint(_without(state, trained)),
        'versions': description.versions(),
    }
    try:
        metadata['model'] = timm_models.describe(model, options or {})
    except (CheckpointError, ValueError) as error:
        warnings.warn(
            f'{path} will not say how to build its model, so that it can only be loaded into one: '
            f'{error}. Where options of timm.create_model are missing, give them as options=',
            stacklevel=2,
        )
    else:
        metadata |= timm_models.preprocessing(model, data_config or {})
        timm_models.require_size(model, data_config or {})
    if precision := _precisions(model):
        metadata['precision'] = precision
    if packed := packed_matrices(model):
        metadata['packed'] = packed
    save_adapter(path, {name: state[name] for name in state if name in trained}, metadata)


def _names(classes: Sequence[str]) -> list[str]:
    """The names of classes, of which ImageNet's own have some twice."""
    if isinstance(classes, str) or not all(isinstance(name, str) for name in classes):
        raise ValueError("classes: give the name of each class in a list, such as ['cat', 'dog']")
    if twice := [name for name, number in Counter(classes).items() if number > 1]:
        warnings.warn(
            f'classes has {listed(twice)} more than once: predictions do not tell them apart',
            stacklevel=3,
        )
    return [str(name) for name in classes]


def load(model: nn.Module, path: str | Path) -> dict[str, Any]:
    """Loads what :func:`save` has written, strictly, and attaches the method where none is.

    A method that was kept in another precision than the model's, as by ``petl.float()``, is
    attached in that again.

    Args:
        model: A model like the one that was saved, with the same weights where they were frozen; or
            what torch.compile or DataParallel have made of it.
        path: The file.

    Returns:
        The metadata of the file.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It is damaged, is of another kind, or does not belong to this model; or the
            model has the method merged into it. The model is as it was.
        TypeError: ``model`` is none.
    """
    model = unwrapped(model)
    tensors, metadata = read_adapter(path)
    load_parts(model, tensors, metadata, path)
    return metadata


def load_parts(
    model: nn.Module, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], path: str | Path
) -> None:
    """Loads what was read from a file already; see :func:`load`."""
    if 'model' not in metadata:
        raise CheckpointError(
            f'{path}: an adapter of a PETLClassifier, whose names are not those of other models; '
            'gleam_mm.Predictor and the tools take it'
        )
    with undone_by_errors(model, path):
        config = checked_part('method', metadata.get('method'))
        if not hasattr(model, NAME):
            with Budget.for_weights(sum(tensor.numel() for tensor in tensors.values())):
                petl = attach(model, config)
                kept = metadata.get('precision')
                if kept and kept['method'] != kept['model']:  # such as by petl.float()
                    petl.to(getattr(torch, kept['method']))
        if method_of(model).merged:  # its frozen weights are not those of the file
            raise CheckpointError(
                'the method is merged into the model: call petl.unmerge() before loading'
            )
        own = fitting(model, tensors, metadata, config)
        require_frozen(metadata, frozen_fingerprint(model, own), _precisions(model))
        model.load_state_dict(own, strict=False)
    learning = {f'{NAME}.{name}' for name, _ in method_of(model).own_parameters()}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in learning or (name in tensors and not _of_method(name)))
    remember_trained(model)


@contextmanager
def undone_by_errors(model: nn.Module, path: str | Path) -> Iterator[None]:
    """Takes a method off again that was attached for a file, where the file does not fit.

    Args:
        model: The model; whatever else is done to it has to be all or nothing.
        path: The file, for messages.

    Raises:
        CheckpointError: It does not fit. The model is as it was, and what was to learn still is.
    """
    attached = hasattr(model, NAME)
    try:
        yield
    except Exception as error:
        if not attached and hasattr(model, NAME):
            detach(model)
        if not isinstance(error, RuntimeError | ValueError):
            raise
        raise CheckpointError(f'{path}: {" ".join(str(error).split())}') from error


def fitting(
    model: nn.Module, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any], config: Any
) -> dict[str, Tensor]:
    """The tensors of a file that a model with a method has, after their comparison.

    Args:
        model: The model; it stays as it is.
        tensors: What the file holds of it.
        metadata: Those of the file.
        config: The method's config in them, after it was checked.

    Raises:
        CheckpointError: The method has other options, or the model other names or shapes, another
            pooling or other heads.
    """
    method_of(model)  # or there is none
    ours = getattr(model, _CONFIG)
    if differing := description.differences({'method': config}, {'method': ours}):
        raise CheckpointError('; '.join(map(str, differing)))
    state = model.state_dict()
    wanted = {name for name in state if name.startswith(f'{NAME}.')}
    tensors = without_scales(tensors, state)
    for what, names in (
        ('the file lacks', wanted - tensors.keys()),
        ('the model has no', tensors.keys() - state.keys()),
    ):
        if names:
            raise CheckpointError(f'{what} {min(names)}: it belongs to another model or method')
    for name, tensor in tensors.items():
        if tensor.shape != state[name].shape:
            hint = ''
            if not name.startswith(f'{NAME}.') and metadata['model']:
                told = metadata['model']
                hint = f'; the file is of {told["name"]} with {told["options"]}'
            raise CheckpointError(
                f'{name} has the shape {tuple(tensor.shape)} in the file but '
                f'{tuple(state[name].shape)} in the model{hint}'
            )
    if otherwise := timm_models.differences(model, metadata.get('model')):
        raise CheckpointError(f'{"; ".join(otherwise)}: build the model that the file is of')
    return tensors


def frozen_fingerprint(
    model: nn.Module, trained: Collection[str], dtype: torch.dtype | None = None
) -> str:
    """The fingerprint of what a model has beside the tensors of a file.

    Args:
        model: The model.
        trained: The names of the tensors in the file.
        dtype: The type that the model's numbers were rounded to, where they are not of it any more.
    """
    frozen = _without(model.state_dict(), trained)
    if dtype is not None:
        frozen = {n: t.to(dtype) if t.is_floating_point() else t for n, t in frozen.items()}
    return fingerprint(frozen)


def require_frozen(
    metadata: Mapping[str, Any], found: str, ours: Mapping[str, str] | None = None
) -> None:
    """Compares the fingerprint in a file with that of a model.

    Args:
        metadata: Those of the file.
        found: The fingerprint of what is frozen in the model.
        ours: The types of the model's numbers, and of its method's, where those may be the reason.

    Raises:
        CheckpointError: They differ; the message has both, or the types of the numbers where it is
            by those.
    """
    if (theirs := metadata.get('backbone_fingerprint')) == found:
        return
    told = metadata.get('precision')
    if told and ours and told['model'] != ours['model']:
        raise CheckpointError(
            f'it was trained on weights in {told["model"]}, but those of this model are in '
            f'{ours["model"]}: load it into model.to(torch.{told["model"]})'
        )
    raise CheckpointError(
        f'it was trained on weights with the fingerprint {theirs}, but those of this model '
        f'have {found}: load the weights that it was trained on first'
    )


def unwrapped(model: nn.Module) -> nn.Module:
    """The model in what torch.compile, DataParallel or an average of weights have made of it.

    Raises:
        TypeError: It is no model.
    """
    require_model(model)
    return inside(model)[1]


def require_model(model: Any) -> None:
    """Refuses what is no model, such as the name of one.

    Raises:
        TypeError: It is none.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f'{shown(model)} is no model: give a torch.nn.Module first, such as '
            "timm.create_model('vit_base_patch16_224', pretrained=True)"
        )


def _config_of(method: Method, options: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(method, str):
        return {**recipes.method_preset(method), **options}
    if isinstance(method, Mapping):
        return {**method, **options}
    if isinstance(method, PETLMethod):
        raise TypeError('give the config of the method, which is saved with it')
    if not isinstance(method, Sequence):
        raise TypeError(
            f"method={shown(method)}: give the name of a preset, such as 'lora', a config, such as "
            "dict(type='LoRA', rank=8), or a list of them"
        )
    if options:
        raise TypeError(
            f'{", ".join(options)}: the options of several methods go into their configs'
        )
    return dict(type='Compose', methods=[_config_of(part, {}) for part in method])


def _precision_of(model: nn.Module) -> torch.dtype | None:
    """The type of most of a model's weights in floating point."""
    numbers = Counter[torch.dtype]()
    for parameter in model.parameters():
        if parameter.is_floating_point():
            numbers[parameter.dtype] += parameter.numel()
    return max(numbers, key=numbers.__getitem__, default=None)


def _precisions(model: nn.Module) -> dict[str, str] | None:
    """The types of a model's numbers and its method's, as far as a file has a word for both."""
    own = _precision_of(model)
    names = {
        key: str(dtype).removeprefix('torch.')
        for key, dtype in (('model', own), ('method', _precision_of(method_of(model)) or own))
    }
    return names if set(names.values()) <= set(PRECISIONS) else None


def _in_heads(model: nn.Module) -> set[str]:
    """The names of the tensors of a model's own classifier."""
    heads = classifiers(model)
    return {
        f'{name}.{key}'
        for name, part in model.named_modules()
        if any(part is head for head in heads)
        for key in part.state_dict()
    }


def method_of(model: nn.Module) -> PETLMethod:
    """The method that :func:`attach` has attached.

    Raises:
        RuntimeError: There is none.
        TypeError: ``model`` is none.
    """
    model = unwrapped(model)
    if not hasattr(model, NAME):
        raise RuntimeError(
            f'this {type(model).__name__} has no method: call gleam_mm.attach(model, ...) first'
        )
    _require_ours(model)
    return getattr(model, NAME)


def require_free(model: nn.Module) -> None:
    """Refuses a model that has a method already.

    Raises:
        RuntimeError: It has one.
        TypeError: It is no model.
    """
    model = unwrapped(model)
    if hasattr(model, NAME):
        _require_ours(model)
        raise RuntimeError(
            f'this {type(model).__name__} has a method already: attach several in one call, as a '
            'list, or call gleam_mm.detach(model) first'
        )


def _require_ours(model: nn.Module) -> None:
    if _CONFIG not in vars(model):
        raise RuntimeError(
            f'this {type(model).__name__} has a {NAME} of its own, which gleam_mm.attach has not '
            'attached: give a model without one'
        )


def remember_trained(model: nn.Module) -> None:
    """Notes what learns of a model with a method by now; see :func:`trained_names`."""
    setattr(model, _TRAINED, Trained(model))


def trained_names(model: nn.Module) -> set[str]:
    """The names of the parameters of a model that a file of its method has.

    Those are what the method trains, of the model as well, and what is trained beside: what learns,
    or did before all of the model was frozen.
    """
    trained: Trained = vars(model).get(_TRAINED) or Trained(model)  # pickled before there were any
    names = trained.names()
    own = {id(parameter) for _, parameter in method_of(model).trainable_parameters()}
    named = model.named_parameters(remove_duplicate=False)
    return names | {name for name, parameter in named if id(parameter) in own}


def _saved_names(model: nn.Module) -> set[str]:
    """The names of a model's state dict that a file has: what is trained, and the method."""
    trained, state = trained_names(model), model.state_dict().keys()
    if all_learn(model, trained):  # then statistics, too, are not those of frozen weights
        return trained | set(state)
    return trained | learning_statistics(model, trained) | set(filter(_of_method, state))


def _of_method(name: str) -> bool:
    return name.startswith(f'{NAME}.')


def _without(state: Mapping[str, Tensor], names: Any) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if name not in names}
