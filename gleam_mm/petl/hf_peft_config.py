"""What HF PEFT has, and which of its tuners and options work here."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from peft import PeftConfig

_OURS = {
    'target_modules': 'name roles in `sites`',
    'exclude_modules': 'name roles in `sites`',
    'target_parameters': 'name roles in `sites`',
    'layers_to_transform': 'name blocks in `blocks`',
    'layers_pattern': 'name blocks in `blocks`',
    'layer_replication': 'the backbone keeps its blocks',
    'modules_to_save': 'the head is always trained',
    'trainable_token_indices': 'images have no vocabulary',
    'task_type': 'the classifier has its own head',
    'inference_mode': 'the method is trained',
}
"""Options of PEFT that have no meaning here -> what to do instead."""

_UNFIT = {
    'ADAPTION_PROMPT': 'it extends the attention of language models',
    'ADALORA': 'the training loop would have to tell it when to reassign its ranks',
    'LN_TUNING': "it trains the backbone's own norms",
    'OSF': "it splits the backbone's own weights",
    'POLY': 'its inputs come with the index of a task',
    'SHADOW': 'it runs beside the blocks of a language model',
    'TRAINABLE_TOKENS': 'images have no vocabulary',
    'XLORA': 'it mixes finished adapters, by the hidden states of a language model',
}

_BEFORE_TRAINING = 'nothing here takes the step before training that finds its start'
_UNFIT_OPTIONS = {
    ('LORA', 'init_lora_weights', 'eva'): _BEFORE_TRAINING,
    ('LORA', 'init_lora_weights', 'corda'): _BEFORE_TRAINING,
    ('LORA', 'init_lora_weights', 'lora_ga'): _BEFORE_TRAINING,
    ('LORA', 'eva_config'): _BEFORE_TRAINING,
    ('LORA', 'corda_config'): _BEFORE_TRAINING,
    ('LORA', 'lora_ga_config'): _BEFORE_TRAINING,
    ('LORA', 'alora_invocation_tokens'): 'images have no tokens that invoke it',
    ('LORA', 'arrow_config'): 'it routes between finished adapters',
    ('LORA', 'monteclora_config'): 'its loss would have to be added to that of the training',
    ('ADAMSS', 'use_asa'): 'the training loop would have to tell it when to drop subspaces',
}
"""Tuner, option and, if not all of them, the value that PEFT takes and that does not work here."""


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise ImportError(
            f"HFPeft needs HF PEFT, the extra 'peft': pip install 'gleam-mm[peft]' ({error})"
        ) from error
    return peft


def config_class_of(peft_type: str) -> 'Callable[..., PeftConfig]':
    """PEFT's config class of a tuner."""
    return _peft().PEFT_TYPE_TO_CONFIG_MAPPING[peft_type]


def tuner_class_of(peft_type: str) -> Callable[..., nn.Module]:
    """PEFT's class of a tuner."""
    return _peft().PEFT_TYPE_TO_TUNER_MAPPING[peft_type]


def options_of(config_class: Any) -> set[str]:
    """The options that a config class takes."""
    return {field.name for field in dataclasses.fields(config_class) if field.init}


def check_config(config: dict[str, Any], roles: tuple[str, ...]) -> dict[str, Any]:
    """Returns the config with its peft_type in capitals.

    Raises:
        ValueError: See :class:`~gleam_mm.petl.HFPeft`.
    """
    peft_type = str(config.get('peft_type', '')).upper()
    fitting = sorted(
        name.value
        for name, config_class in _peft().PEFT_TYPE_TO_CONFIG_MAPPING.items()
        if 'target_modules' in options_of(config_class) and name.value not in _UNFIT
    )
    if reason := _UNFIT.get(peft_type):
        raise ValueError(f'config of HFPeft: peft_type={peft_type!r} does not fit here: {reason}')
    if peft_type not in fitting:
        raise ValueError(
            f'config of HFPeft: peft_type={config.get("peft_type")!r} is no tuner that adapts '
            f'Linears; this version of PEFT has {", ".join(fitting)}'
        )
    for name in config.keys() & _OURS:
        raise ValueError(f'config of HFPeft: leave out {name!r}: {_OURS[name]}')
    known = options_of(config_class_of(peft_type)) - _OURS.keys()
    if unknown := sorted(config.keys() - known):
        raise ValueError(
            f'config of HFPeft: {peft_type} has no option {", ".join(map(repr, unknown))}; it has '
            f'{", ".join(sorted(known))}'
        )
    for (tuner, option, *values), reason in _UNFIT_OPTIONS.items():
        value = config.get(option)
        if tuner == peft_type and (value in values if values else value):
            raise ValueError(
                f'config of HFPeft: {peft_type} with {option}={value!r} does not work here: '
                f'{reason}; leave it out'
            )
    if config.get('bias', 'none') != 'none':
        raise ValueError(
            f"config of HFPeft: bias={config['bias']!r} would train the backbone's biases; leave "
            'it out, or use BitFit'
        )
    if outside := set(config.get('feedforward_modules', ())) - set(roles):
        raise ValueError(
            f'config of HFPeft: feedforward_modules takes roles among `sites` ({", ".join(roles)}),'
            f' not {", ".join(sorted(outside))}'
        )
    return {**config, 'peft_type': peft_type}
