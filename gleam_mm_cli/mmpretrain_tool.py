"""Runs a tool of the installed MMPretrain: gleam-mm mmpretrain-tool NAME FLAGS...

The tools of its releases do not start beside current torch, setuptools and grad-cam; here they do.
They take the configs that trainings leave in their work directories, checkpoints and adapters.
"""

import argparse
import functools
import inspect
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from gleam_mm_cli.flags import Parser


def parse_args() -> argparse.Namespace:
    """Reads the name of the tool; what follows is its own."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('name', help='such as test, browse_dataset, vis_tsne, vis_cam, get_flops')
    parser.add_argument('flags', nargs=argparse.REMAINDER, help="the tool's own")
    args = parser.parse_args()
    tools = {file.stem: file for file in _folder().rglob('*.py')}
    if args.name not in tools:
        parser.error(f'MMPretrain has no tool {args.name!r}; it has {", ".join(sorted(tools))}')
    args.file = tools[args.name]
    return args


def _folder() -> Path:
    return Path(find_spec('mmpretrain').origin).parent / '.mim' / 'tools'


def main(args: argparse.Namespace) -> None:
    """Runs the tool in this process, after the patches that importing gleam_mm makes."""
    import runpy

    import gleam_mm  # noqa: F401

    _replace_pkg_resources()
    if args.name in _MENDED:
        _MENDED[args.name]()
    sys.argv = [str(args.file), *args.flags]
    sys.path.insert(0, str(args.file.parent))  # as Python does for a script
    runpy.run_path(str(args.file), run_name='__main__')


def _replace_pkg_resources() -> None:
    """Answers ``pkg_resources.get_distribution(name).version``; setuptools 81 has dropped it."""
    if find_spec('pkg_resources') is None:
        module = ModuleType('pkg_resources')
        module.get_distribution = metadata.distribution  # type: ignore[attr-defined]
        sys.modules['pkg_resources'] = module


def _accept_use_cuda() -> None:
    """Lets the methods of grad-cam take ``use_cuda``, which 1.5 has dropped: it asks the model."""
    from pytorch_grad_cam.base_cam import BaseCAM

    for method in BaseCAM.__subclasses__():
        method.__init__ = _renaming(method.__init__, use_cuda=None)  # type: ignore[method-assign]


def _accept_n_iter() -> None:
    """Lets scikit-learn's t-SNE take ``n_iter``, which 1.7 has dropped for ``max_iter``."""
    from sklearn.manifold import TSNE

    if 'n_iter' not in inspect.signature(TSNE).parameters:
        TSNE.__init__ = _renaming(TSNE.__init__, n_iter='max_iter')


def _renaming(init: Any, **names: str | None) -> Any:
    """A constructor that takes arguments by old names, or by names that mean nothing any more."""

    @functools.wraps(init)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> None:
        for old, new in names.items():
            if old in kwargs:
                value = kwargs.pop(old)
                if new is not None:
                    kwargs[new] = value
        init(self, *args, **kwargs)

    return wrapped


_MENDED = {'vis_cam': _accept_use_cuda, 'vis_tsne': _accept_n_iter}
"""Tools that call what a library has changed since -> what lets them."""
