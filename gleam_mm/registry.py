"""The registries, in which every floor above registers: a child of each one of MMPretrain.

A type that is not found here is looked up in MMPretrain and then in MMEngine, so a config with
``default_scope = 'gleam_mm'`` names components of all three without prefixes. *Every* MMPretrain
registry needs its child: where one is missing, MMEngine falls back to the root past MMPretrain.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.config import Config
from mmengine.registry import DefaultScope, Registry
from mmpretrain import registry as _mmpretrain

__all__ = [
    'BATCH_AUGMENTS',
    'DATASETS',
    'DATA_SAMPLERS',
    'EVALUATORS',
    'HOOKS',
    'LAYOUTS',
    'LOG_PROCESSORS',
    'LOOPS',
    'METRICS',
    'MODELS',
    'MODEL_WRAPPERS',
    'OPTIMIZERS',
    'OPTIM_WRAPPERS',
    'OPTIM_WRAPPER_CONSTRUCTORS',
    'PARAM_SCHEDULERS',
    'RUNNERS',
    'RUNNER_CONSTRUCTORS',
    'TASK_UTILS',
    'TOKENIZER',
    'TRANSFORMS',
    'VISBACKENDS',
    'VISUALIZERS',
    'WEIGHT_INITIALIZERS',
    'own_scope',
    'registered',
    'scope_of',
]

SCOPE = 'gleam_mm'


# The scope is the whole process's: of two threads that overwrite it at once, one would look types
# up in the other's, and leave behind what it found.
_turns = threading.RLock()


@contextmanager
def scope_of(cfg: Config) -> Iterator[None]:
    """Within it, types are looked up from a config's ``default_scope`` on; by default ``gleam_mm``.

    A runner sees to it by itself; what builds parts of a config without one needs this. Threads
    take turns.
    """
    with _turns, DefaultScope.overwrite_default_scope(cfg.get('default_scope', SCOPE)):
        yield


@contextmanager
def own_scope() -> Iterator[None]:
    """Within it, types are looked up here, for who builds parts without a config's scope.

    That is outside of any scope, in those of MMPretrain and MMEngine, as with their tools, and in
    those of libraries beside MMPretrain, such as of detectors and segmentors, which do not know
    what is here. In a scope of the user's own, which is made upon MMPretrain's or ours, it stays at
    that, which has more to find. Threads take turns.
    """
    with _turns:
        current = DefaultScope.get_current_instance()
        root = MODELS._get_root_registry()
        known = None if current is None else root._search_child(current.scope_name)
        above = None if known is None else known.parent
        while above is not None and above is not _mmpretrain.MODELS:
            above = above.parent
        with DefaultScope.overwrite_default_scope(SCOPE if above is None else None):
            yield


def registered(registry: Registry, name: str) -> Any:
    """Finds a component that is registered already, where :meth:`Registry.get` would import it.

    Args:
        registry: One of those below, which is asked with its parents.
        name: The name, alone or with the scope (``mmpretrain.VisionTransformer``) or the module of
            the component in front, as new-style configs are written.

    Returns:
        The component, or None.
    """
    registry.import_from_location()  # our own and MMPretrain's, whatever the name
    prefix, _, bare = name.rpartition('.')
    asked: Registry | None = registry
    while asked is not None:
        if bare in asked.module_dict:
            component = asked.module_dict[bare]
            known = ('', asked.scope, getattr(component, '__module__', ''))
            return component if prefix in known else None
        asked = asked.parent
    return None


def _child(parent: Registry, *locations: str) -> Registry:
    """Makes the ``gleam_mm`` child of an MMPretrain registry."""
    # MMEngine imports the locations of the registry that is asked, not those of its parents.
    locations = [*parent._locations, *locations]
    child = Registry(parent.name, parent=parent, scope=SCOPE, locations=locations)
    # MMEngine looks `gleam_mm.X` up in the children of the registry that is asked and in those of
    # the root, so that other libraries would not find what is MMPretrain's child alone.
    parent._get_root_registry().children.setdefault(SCOPE, child)
    return child


# Running
RUNNERS = _child(_mmpretrain.RUNNERS, 'gleam_mm.engine')
RUNNER_CONSTRUCTORS = _child(_mmpretrain.RUNNER_CONSTRUCTORS, 'gleam_mm.engine')
LOOPS = _child(_mmpretrain.LOOPS, 'gleam_mm.engine')
HOOKS = _child(_mmpretrain.HOOKS, 'gleam_mm.engine')
LOG_PROCESSORS = _child(_mmpretrain.LOG_PROCESSORS, 'gleam_mm.engine')
OPTIMIZERS = _child(_mmpretrain.OPTIMIZERS, 'gleam_mm.engine')
OPTIM_WRAPPERS = _child(_mmpretrain.OPTIM_WRAPPERS, 'gleam_mm.engine')
OPTIM_WRAPPER_CONSTRUCTORS = _child(_mmpretrain.OPTIM_WRAPPER_CONSTRUCTORS, 'gleam_mm.engine')
PARAM_SCHEDULERS = _child(_mmpretrain.PARAM_SCHEDULERS, 'gleam_mm.engine')

# Data
DATASETS = _child(_mmpretrain.DATASETS, 'gleam_mm.datasets', 'gleam_mm.minivtab')
DATA_SAMPLERS = _child(_mmpretrain.DATA_SAMPLERS, 'gleam_mm.minivtab')
TRANSFORMS = _child(_mmpretrain.TRANSFORMS, 'gleam_mm.datasets')

# Models. PETL methods are model components and live in MODELS as well.
MODELS = _child(_mmpretrain.MODELS, 'gleam_mm.models', 'gleam_mm.petl')
MODEL_WRAPPERS = _child(_mmpretrain.MODEL_WRAPPERS, 'gleam_mm.models')
WEIGHT_INITIALIZERS = _child(_mmpretrain.WEIGHT_INITIALIZERS, 'gleam_mm.models')
BATCH_AUGMENTS = _child(_mmpretrain.BATCH_AUGMENTS, 'gleam_mm.models')
TASK_UTILS = _child(_mmpretrain.TASK_UTILS, 'gleam_mm.models')
TOKENIZER = _child(_mmpretrain.TOKENIZER, 'gleam_mm.models')

# Layouts: what knows the sites of one backbone class. MMPretrain has no such registry.
LAYOUTS = Registry('layout', scope=SCOPE, locations=['gleam_mm.layouts'])

# Evaluation and pictures
METRICS = _child(_mmpretrain.METRICS, 'gleam_mm.engine')
EVALUATORS = _child(_mmpretrain.EVALUATORS, 'gleam_mm.engine')
VISUALIZERS = _child(_mmpretrain.VISUALIZERS, 'gleam_mm.engine')
VISBACKENDS = _child(_mmpretrain.VISBACKENDS, 'gleam_mm.engine')
