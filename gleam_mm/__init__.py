"""GLEAM-MM: parameter-efficient transfer learning of vision transformers on MMPretrain.

The doors for Python programs are here::

    gleam_mm.attach(model, 'gleam-l')     # a method on a model of timm, for any training loop
    gleam_mm.save(model, 'pets.safetensors')
    gleam_mm.load(model, 'pets.safetensors')
    gleam_mm.Predictor('pets.safetensors')('cat.jpg')
    gleam_mm.AdapterBank('vit-b', {'pets': 'pets.safetensors'})  # many tasks on one backbone
    gleam_mm.finetune('birds/', backbone='vit-b', method='gleam-l')

``import gleam_mm`` costs as much as MMEngine does: the packages below are imported when they are
asked for, and so are the registries, by MMEngine too, for which a config only needs
``default_scope = 'gleam_mm'``.
"""

from importlib import import_module
from typing import Any

from mmengine.config.utils import MODULE2PACKAGE

from gleam_mm import compat
from gleam_mm.version import __version__

compat.apply()  # before anything imports torchvision or mmpretrain
MODULE2PACKAGE[__name__] = __name__  # for `_base_ = 'gleam_mm::...'`

_DOORS = {
    'attach': 'gleam_mm.models.plain',
    'detach': 'gleam_mm.models.plain',
    'finetune': 'gleam_mm.engine.finetune',
    'from_hub': 'gleam_mm.inference.hub',
    'load': 'gleam_mm.models.plain',
    'load_peft': 'gleam_mm.models.peft_format',
    'push_to_hub': 'gleam_mm.inference.hub',
    'save': 'gleam_mm.models.plain',
    'save_peft': 'gleam_mm.models.peft_format',
    'export': 'gleam_mm.inference.export',
    'AdapterBank': 'gleam_mm.bank',
    'Predictor': 'gleam_mm.inference',
}
"""Names of the package -> the module that has them."""

_PARTS = ('bank', 'checkpoint', 'datasets', 'engine', 'inference', 'models', 'petl', 'registry')

__all__ = ['__version__', 'compat', *_DOORS, *_PARTS]


def __getattr__(name: str) -> Any:
    if name in _PARTS:
        return import_module(f'gleam_mm.{name}')
    if name in _DOORS:
        return getattr(import_module(_DOORS[name]), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
