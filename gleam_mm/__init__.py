"""GLEAM-MM: parameter-efficient transfer learning of vision transformers on MMPretrain.

Importing the package registers all of its components, so a config only needs
``default_scope = 'gleam_mm'``.
"""

from gleam_mm import compat

compat.apply()  # before anything imports torchvision or mmpretrain

from gleam_mm import checkpoint, datasets, engine, models, petl  # noqa: E402
from gleam_mm.version import __version__  # noqa: E402

__all__ = ['__version__', 'checkpoint', 'compat', 'datasets', 'engine', 'models', 'petl']
