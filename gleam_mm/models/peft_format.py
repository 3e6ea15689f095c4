"""LoRA in the format of HF PEFT: a folder with ``adapter_config.json`` and its weights."""

import json
import math
from collections.abc import Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from mmpretrain.models.heads import LinearClsHead
from torch import Tensor, nn
from torch.nn import functional as F

from gleam_mm.arguments import ArgumentError, Positive, Probability, check
from gleam_mm.checkpoint import CheckpointError, read_state_dict, require_file
from gleam_mm.fileio import write_bytes
from gleam_mm.layouts import InProjection, Layout, Site, find_layout
from gleam_mm.messages import shown
from gleam_mm.models import plain
from gleam_mm.models.classifier import PETLClassifier
from gleam_mm.petl import LoRA, PETLMethod

CONFIG = 'adapter_config.json'
WEIGHTS = 'adapter_model.safetensors'

_PREFIX = 'base_model.model.'  # of PEFT's wrapper
_DOWN, _UP = '.lora_A.weight', '.lora_B.weight'
_TIMM = 'timm_model.'  # where MMPretrain's backbone holds timm's

_READ = ('peft_type', 'r', 'lora_alpha', 'lora_dropout', 'use_rslora', 'bias', 'init_lora_weights')
"""Options of PEFT's LoRA that have a meaning here."""

_WITHOUT_EFFECT = (
    *('task_type', 'auto_mapping', 'peft_version', 'base_model_name_or_path', 'revision'),
    *('inference_mode', 'target_modules', 'exclude_modules', 'modules_to_save'),
    *('layers_to_transform', 'layers_pattern', 'ensure_weight_tying'),
    *('loftq_config', 'eva_config', 'corda_config', 'lora_ga_config'),  # of other starts
    *('velora_config', 'megatron_core', 'qalora_group_size'),
)
"""Options that say which modules have one, as the tensors do, or how it was trained. Any other, of
this PEFT or a later one, makes another update of it, where it is neither false nor empty."""

_STARTS = ('true', 'false', 'gaussian', 'orthogonal', 'eva', 'mica')
"""Starts that PEFT changes no weights of the backbone for, as text."""


def save_peft(model: nn.Module, folder: str | Path) -> Path:
    """Writes a model's LoRA, and what else was trained, as PEFT does.

    What that is of a model that is frozen by now, :func:`gleam_mm.save` says.

    ``peft.PeftModel.from_pretrained(model, folder)`` loads it onto the same pretrained model: the
    one of timm or transformers that :func:`gleam_mm.attach` was given; for a
    :class:`PETLClassifier` on timm's backbone, timm's model with as many classes; on another
    backbone, that backbone, without a head.

    Args:
        model: The model, with a :class:`~gleam_mm.petl.LoRA`; or what torch.compile or DataParallel
            have made of it.
        folder: Where to write.

    Returns:
        The folder.

    Raises:
        RuntimeError: The model has no method.
        TypeError: ``model`` is none.
        ValueError: The method is another one, or has more than PEFT's, or acts where that does not;
            or a neck was trained, or a head that timm does not have, or a parameter without a
            module that PEFT could save as a whole.
    """
    folder, model = Path(folder), plain.unwrapped(model)
    petl, prefix, modules, trained = _parts(model)
    if not isinstance(petl, LoRA):
        raise ValueError(
            f'{petl.title} is no LoRA, which PEFT has a format for; merge() it, or let '
            'gleam-mm extract make a LoRA of it'
        )
    if (beside := petl.beside_factors) is not None:
        raise ValueError(
            f'{petl.title} has {beside}, which PEFT has no place for; an adapter file of GLEAM-MM '
            'has'
        )
    pairs = {path.removeprefix(prefix): pair for path, pair in _of_modules(petl).items()}
    rank = len(next(iter(pairs.values()))[0])
    tensors = {}
    for name, (down, up) in pairs.items():
        tensors[f'{_PREFIX}{name}{_DOWN}'], tensors[f'{_PREFIX}{name}{_UP}'] = down, up
    config = {
        'peft_type': 'LORA',
        'base_model_name_or_path': _name_of(model),
        'r': rank,
        'lora_alpha': petl.scale * rank,
        'lora_dropout': petl.drop_rate,
        'target_modules': list(pairs),
        'modules_to_save': modules or None,
        'bias': 'none',
        'fan_in_fan_out': False,
        'use_rslora': False,
        'inference_mode': True,
        'task_type': None,
    }
    tensors |= {f'{_PREFIX}{name}': tensor for name, tensor in trained.items()}
    plain_tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / WEIGHTS, safetensors.torch.save(plain_tensors, {'format': 'pt'}))
    write_bytes(folder / CONFIG, f'{json.dumps(config, indent=2)}\n'.encode())
    return folder


def load_peft(model: nn.Module, folder: str | Path) -> PETLMethod:
    """Attaches the LoRA that PEFT has written, and loads it.

    Args:
        model: A model like the one that it was trained on, with the same weights; or what
            torch.compile or DataParallel have made of it.
        folder: Has ``adapter_config.json`` and ``adapter_model.safetensors``.

    Returns:
        The method, to be trained on, saved or merged as any.

    Raises:
        FileNotFoundError: A file is missing.
        CheckpointError: It is another tuner, or does not fit the model, which is as it was.
        RuntimeError: The model has a method already.
        TypeError: ``model`` is none.
    """
    plain.require_free(model)
    folder, model = Path(folder), plain.unwrapped(model)
    config = _read_config(folder / CONFIG)
    tensors = {
        name.removeprefix(_PREFIX): tensor
        for name, tensor in read_state_dict(folder / WEIGHTS).items()
    }
    pairs = _pairs(tensors, folder)
    layout = find_layout(model)
    sites = {site.name: site for site in layout.all_sites()}
    for name in pairs:
        if name not in sites:
            raise CheckpointError(f'{folder}: the model has no site {name}, which the LoRA adapts')
    rest = _rest(tensors, model, folder)
    rank, scale = _size_of(pairs, config, folder)
    method = {
        'type': 'LoRA',
        'rank': rank,
        'alpha': scale * rank,
        'drop_rate': float(config.get('lora_dropout') or 0),
        **_places([sites[name] for name in pairs], layout),
    }
    with plain.undone_by_errors(model, folder):
        petl = plain.attach(model, method)
        petl.load_state_dict(
            {
                f'local.{site.key}.{matrix}': tensor
                for site in petl.sites.values()
                for matrix, tensor in zip(('down', 'up'), pairs[site.name], strict=True)
            }
        )
    model.load_state_dict(rest, strict=False)
    for name, parameter in model.named_parameters():
        if name in rest:
            parameter.requires_grad_(True)
    plain.remember_trained(model)
    return petl


def _parts(model: nn.Module) -> tuple[PETLMethod, str, list[str], dict[str, Tensor]]:
    """The method, what its names of sites begin with here alone, and what else was trained.

    That is modules, and all that they hold.
    """
    if not isinstance(model, PETLClassifier):
        petl, own = plain.method_of(model), f'{plain.NAME}.'
        names = sorted(name for name in plain.trained_names(model) if not name.startswith(own))
        modules = _modules_of(model, names, petl)
        state, within = model.state_dict(), tuple(f'{module}.' for module in modules)
        return petl, '', modules, {n: t for n, t in state.items() if n.startswith(within)}
    inner = getattr(model.backbone, 'timm_model', None)
    if inner is None:
        return model.petl, '', [], {}
    if model.with_neck and any(True for _ in model.neck.parameters()):
        raise ValueError('the neck has parameters, which a model of timm has no place for')
    if not model.with_head:
        return model.petl, _TIMM, [], {}
    if type(model.head) is not LinearClsHead:
        raise ValueError(
            f'model.head is a {type(model.head).__name__}, which a model of timm has no place for, '
            'only for a LinearClsHead; an adapter file of GLEAM-MM has'
        )
    name = inner.pretrained_cfg.get('classifier') or 'head'
    head = {f'{name}.{key}': tensor for key, tensor in model.head.fc.state_dict().items()}
    return model.petl, _TIMM, [name], head


def _modules_of(model: nn.Module, names: list[str], petl: PETLMethod) -> list[str]:
    """The modules of trained parameters, which PEFT finds by the ends of their names."""
    adapted = {site.path for site in petl.sites.values()}
    modules = {name.rpartition('.')[0] for name in names}
    filled = {name.rpartition('.')[0] for name in model.state_dict()}
    for name in names:
        module = name.rpartition('.')[0]
        inside = next((path for path in adapted if f'{path}.'.startswith(f'{module}.')), None)
        alike = next((path for path in filled - {module} if path.endswith(module)), None)
        if not module:
            reason = 'of no module but the model'
        elif inside is not None:
            reason = f'of {module}, and {inside} is adapted'
        elif alike is not None:
            reason = f'of {module}, and PEFT would take {alike} for that as well'
        else:
            continue
        raise ValueError(
            f'{name} was trained, a parameter {reason}: PEFT saves whole modules; an adapter file '
            'of GLEAM-MM has a place for it'
        )
    outer = tuple(f'{module}.' for module in modules)
    return sorted(module for module in modules if not module.startswith(outer))


def _of_modules(petl: LoRA) -> dict[str, tuple[Tensor, Tensor]]:
    """The pair of each module, all of one rank, since one option of PEFT says it.

    Pairs of queries and values alone are rows of a fused module's, which has the ranks of both;
    where others have a smaller one, zeros fill them up.
    """
    downs: dict[str, list[Tensor]] = {}
    ups: dict[str, list[Tensor]] = {}
    for site in petl.sites.values():
        if isinstance(site.module, InProjection):
            raise ValueError(
                f'{site.name!r} is a parameter of an nn.MultiheadAttention, which PEFT adapts '
                'otherwise; merge() it, or leave qkv out of `sites`'
            )
        down, up = petl.factors(site)
        if site.rows is not None:
            whole = up.new_zeros(site.module.out_features, up.shape[1])
            whole[site.rows] = up.detach()
            up = whole
        downs.setdefault(site.path, []).append(down)
        ups.setdefault(site.path, []).append(up)
    pairs = {path: (torch.cat(downs[path]), torch.cat(ups[path], dim=1)) for path in downs}
    most = max(len(down) for down, _ in pairs.values())
    return {
        path: (F.pad(down, (0, 0, 0, most - len(down))), F.pad(up, (0, most - len(down))))
        for path, (down, up) in pairs.items()
    }


def _name_of(model: nn.Module) -> str | None:
    known = getattr(getattr(model, 'backbone', model), 'timm_model', model)
    told = getattr(known, 'pretrained_cfg', None) or {}
    return told.get('hf_hub_id') or getattr(getattr(known, 'config', None), '_name_or_path', None)


def _read_config(path: Path) -> Mapping[str, Any]:
    require_file(path, f'a folder with {CONFIG}, as PEFT saves a LoRA')
    try:
        config = json.loads(path.read_text('utf-8'))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f'{path}: no JSON: {error}') from None
    if not isinstance(config, dict) or config.get('peft_type') != 'LORA':
        kind = config.get('peft_type') if isinstance(config, dict) else None
        raise CheckpointError(f'{path}: peft_type={kind!r}; only LORA is loaded')
    for key, value in config.items():
        if value and key not in (*_READ, *_WITHOUT_EFFECT):
            raise CheckpointError(f'{path}: {key}={shown(value)} is not loaded, only plain LoRA is')
    if config.get('bias', 'none') != 'none':
        raise CheckpointError(f'{path}: bias={config["bias"]!r}: biases that were trained are lost')
    start = str(config.get('init_lora_weights', True)).lower()
    if start not in _STARTS:
        raise CheckpointError(
            f'{path}: init_lora_weights={start!r} has changed the weights of the backbone, for all '
            'that is known; save it with path_initial_model_for_weight_conversion'
        )
    try:
        check(config.get('r'), Positive, 'r')
        check(config.get('lora_alpha'), float, 'lora_alpha')
        check(config.get('lora_dropout') or 0, Probability, 'lora_dropout')
    except ArgumentError as error:
        raise CheckpointError(f'{path}: {error}') from None
    return config


def _pairs(tensors: Mapping[str, Tensor], folder: Path) -> dict[str, tuple[Tensor, Tensor]]:
    pairs = {}
    for name, down in tensors.items():
        if not name.endswith(_DOWN):
            continue
        module = name.removesuffix(_DOWN)
        up = tensors.get(module + _UP)
        if down.ndim > 2:
            raise CheckpointError(
                f'{folder}: {module} is a convolution, and only the LoRA of Linears is loaded'
            )
        if up is None or down.ndim != 2 or up.ndim != 2 or len(down) != up.shape[1]:
            raise CheckpointError(f'{folder}: {module} has no pair of matrices')
        pairs[module] = down, up
    if not pairs:
        raise CheckpointError(f'{folder}: {WEIGHTS} has no LoRA')
    return pairs


def _rest(tensors: Mapping[str, Tensor], model: nn.Module, folder: Path) -> dict[str, Tensor]:
    """What was trained beside the LoRA."""
    state = model.state_dict()
    rest = {name: t for name, t in tensors.items() if not name.endswith((_DOWN, _UP))}
    for name, tensor in rest.items():
        if name not in state:
            raise CheckpointError(f'{folder}: the model has no {name}')
        if state[name].shape != tensor.shape:
            raise CheckpointError(
                f'{folder}: {name} has the shape {tuple(tensor.shape)}, but '
                f'{tuple(state[name].shape)} in the model'
            )
    return rest


def _size_of(
    pairs: Mapping[str, tuple[Tensor, Tensor]], config: Mapping[str, Any], folder: Path
) -> tuple[int, float]:
    ranks = {len(down) for down, _ in pairs.values()}
    if len(ranks) > 1:
        raise CheckpointError(f'{folder}: the ranks {sorted(ranks)} of its matrices differ')
    (rank,) = ranks
    root = math.sqrt(rank) if config.get('use_rslora') else rank
    return rank, config['lora_alpha'] / root


def _places(wanted: list[Site], layout: Layout) -> dict[str, Any]:
    """The options of the method that adapts these sites and no others: by roles, or else names."""
    names = {site.name for site in wanted}
    within = sorted({site.block for site in wanted if site.block is not None})
    for role_of in (attrgetter('role'), _role):
        roles = list(dict.fromkeys(map(role_of, wanted)))
        for blocks in ({}, {'blocks': within}):
            if {site.name for site in layout.sites(roles, **blocks)} == names:
                return {'sites': roles, **blocks}
    return {'sites': sorted(names)}


def _role(site: Site) -> str:
    """What a site is; of queries, keys or values, which, where it is a Linear of their own."""
    return site.parts[0] if len(site.parts) == 1 else site.role
