"""LoRA in the format of HF PEFT: a folder with ``adapter_config.json`` and its weights."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from mmpretrain.models.heads import LinearClsHead
from torch import Tensor, nn
from torch.nn import functional as F

from gleam_mm.checkpoint import CheckpointError, read_state_dict
from gleam_mm.fileio import write_bytes
from gleam_mm.layouts import InProjection, Site, find_layout
from gleam_mm.layouts.site import PART_ROLES
from gleam_mm.models import plain
from gleam_mm.models.classifier import PETLClassifier
from gleam_mm.petl import LoRA, PETLMethod

CONFIG = 'adapter_config.json'
WEIGHTS = 'adapter_model.safetensors'

_PREFIX = 'base_model.model.'  # of PEFT's wrapper
_DOWN, _UP = '.lora_A.weight', '.lora_B.weight'
_TIMM = 'timm_model.'  # where MMPretrain's backbone holds timm's

_OTHER_UPDATES = ('use_dora', 'fan_in_fan_out', 'lora_bias', 'rank_pattern', 'alpha_pattern')
"""Options of PEFT's LoRA, that are false or empty where it is the one of the paper."""

_OTHER_WEIGHTS = ('pissa', 'olora', 'corda', 'loftq')
"""Starts that PEFT changes the weights of the backbone for."""


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
    sites = {site.name: site for site in find_layout(model).all_sites()}
    for name in pairs:
        if name not in sites:
            raise CheckpointError(f'{folder}: the model has no site {name}, which the LoRA adapts')
    rest = _rest(tensors, model, folder)
    rank, scale = _size_of(pairs, config)
    method = _method_for([sites[name] for name in pairs], sites, rank, scale)
    method['drop_rate'] = float(config.get('lora_dropout') or 0)
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
    try:
        config = json.loads(path.read_text('utf-8'))
    except ValueError as error:
        raise CheckpointError(f'{path}: no JSON: {error}') from None
    if not isinstance(config, dict) or config.get('peft_type') != 'LORA':
        kind = config.get('peft_type') if isinstance(config, dict) else None
        raise CheckpointError(f'{path}: peft_type={kind!r}; only LORA is loaded')
    for key in _OTHER_UPDATES:
        if config.get(key):
            raise CheckpointError(
                f'{path}: {key}={config[key]!r} is not loaded, only plain LoRA is'
            )
    if config.get('bias', 'none') != 'none':
        raise CheckpointError(f'{path}: bias={config["bias"]!r}: biases that were trained are lost')
    start = str(config.get('init_lora_weights', True)).lower()
    if start.startswith(_OTHER_WEIGHTS):
        raise CheckpointError(
            f'{path}: init_lora_weights={start!r} has changed the weights of the backbone; save it '
            'with path_initial_model_for_weight_conversion'
        )
    for key in ('r', 'lora_alpha'):
        if not isinstance(config.get(key), int | float) or config[key] <= 0:
            raise CheckpointError(f'{path}: {key}={config.get(key)!r} is no number above 0')
    drop_rate = config.get('lora_dropout') or 0
    if not isinstance(drop_rate, int | float) or not 0 <= drop_rate < 1:
        raise CheckpointError(f'{path}: lora_dropout={drop_rate!r} is no number from 0 to below 1')
    return config


def _pairs(tensors: Mapping[str, Tensor], folder: Path) -> dict[str, tuple[Tensor, Tensor]]:
    pairs = {}
    for name, down in tensors.items():
        if not name.endswith(_DOWN):
            continue
        module = name.removesuffix(_DOWN)
        up = tensors.get(module + _UP)
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
    pairs: Mapping[str, tuple[Tensor, Tensor]], config: Mapping[str, Any]
) -> tuple[int, float]:
    ranks = {len(down) for down, _ in pairs.values()}
    if len(ranks) > 1:
        raise CheckpointError(f'the ranks {sorted(ranks)} of its matrices differ')
    (rank,) = ranks
    root = math.sqrt(rank) if config.get('use_rslora') else rank
    return rank, config['lora_alpha'] / root


def _method_for(
    wanted: list[Site], sites: Mapping[str, Site], rank: int, scale: float
) -> dict[str, Any]:
    """The config of the method that adapts these sites, and no others."""
    blocks = sorted({site.index for site in wanted})
    names = {site.name for site in wanted}
    roles = list(dict.fromkeys(site.role for site in wanted))
    if any(_role(site) in PART_ROLES for site in wanted) and not all(
        site.name in names for site in sites.values() if site.role == 'qkv' and site.block in blocks
    ):  # some of the Linears of queries, keys and values
        roles = list(dict.fromkeys(_role(site) for site in wanted))
    for site in sites.values():
        role = _role(site) if _role(site) in roles else site.role
        if role in roles and site.block in blocks and site.name not in names:
            raise CheckpointError(
                f'the LoRA adapts {", ".join(roles)} in the blocks {blocks}, but not {site.name}'
            )
    every = {site.block for site in sites.values() if site.block is not None}
    chosen: dict[str, Any] = {} if every == set(blocks) else {'blocks': blocks}
    return dict(type='LoRA', rank=rank, alpha=scale * rank, sites=roles, **chosen)


def _role(site: Site) -> str:
    """What a site is; of queries, keys or values, which, where it is a Linear of their own."""
    return site.parts[0] if len(site.parts) == 1 else site.role
