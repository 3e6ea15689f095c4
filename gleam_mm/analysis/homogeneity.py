"""Whether the updates of a method are alike across layers (the paper's figures 2 and 3).

The *update* of a site is the difference between what it gives with the method and what the backbone
of before training gives **for the same input** x. For LoRA that is BAx (equation 6), for GLEAM
alpha B L MoE A x. The definition also covers methods that act on a site's input (RepAdapter:
W0 (x' - x)), on blocks (AdaptFormer, and VPT: what the prompts change in the other tokens), or on
the backbone's own weights (full tuning: (W - W0) x; BitFit: a change of bias, the same for every
input). A linear probe has none.

The *frozen path* at the same site is W0 x + b0. What an FFN or a block passes on unchanged, the
residual stream, is taken out of it: it is nearly the same in adjacent layers.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gleam_mm.analysis.similarity import SimilaritySums, adjacent_mean
from gleam_mm.analysis.subjects import (
    AnalysisError,
    Subject,
    batches,
    build_dataset,
    choose,
    describe_data,
    knows,
)
from gleam_mm.layouts import LINEAR_ROLES, WINDOWED_ROLES, Site, find_layout
from gleam_mm.petl import PETLMethod

ROLES = (*LINEAR_ROLES, 'attn', 'ffn', 'block')
MEASURES = ('cosine', 'l2', 'cka')
PATHS = ('frozen', 'update')

# Below this part of the frozen output's norm, a difference in float32 is rounding.
_NOISE = 1e-5

DEFINITIONS = {
    'update': 'adapted minus frozen output of a site, for the same input',
    'frozen': 'frozen output of a site, without the residual stream',
    'feature map': 'all tokens and channels of an image as one vector',
    'cosine': 'cosine similarity of two feature maps, mean over images',
    'l2': 'L2 distance of two feature maps, mean over images',
    'cka': 'linear CKA over minibatches, images as examples (Nguyen et al., 2021)',
    'norm': 'L2 norm of a feature map, mean over images',
    'adjacent': 'mean over pairs of adjacent layers',
}


class NoUpdateError(AnalysisError):
    """A method that changes nothing at the sites in question."""


def update_roles(method: PETLMethod, wanted: Sequence[str] | None = None) -> tuple[str, ...]:
    """The roles at which a method has updates.

    Args:
        method: The method, attached to a backbone.
        wanted: Roles to take of them; None for all.

    Raises:
        NoUpdateError: The method has no updates, or none at a wanted role.
    """
    name = type(method).__name__
    if not any(True for _ in method.trainable_parameters()):
        raise NoUpdateError(f'{name} has no updates: it trains the head alone')
    roles = {role for member in method.members() for role in member.roles}
    own = tuple(role for role in ROLES if role in roles)
    if any(True for member in method.members() for _ in member.adopted_parameters()):
        own = ROLES  # the backbone's own weights: wherever one likes
    if not own:
        raise NoUpdateError(
            f'{name} has no update at any of {", ".join(ROLES)}; its roles are '
            f'{", ".join(sorted(roles)) or "none"}'
        )
    if wanted is None:
        return tuple(role for role in own if role in LINEAR_ROLES) or own
    if strange := [role for role in wanted if role not in own]:
        raise NoUpdateError(
            f'{name} has no update at {", ".join(strange)}; choose --roles among {", ".join(own)}'
        )
    return tuple(wanted)


class UpdateProbe:
    """Reads frozen outputs and updates of sites while a model runs.

    In a ``with`` block, it hooks the model around the method's own hooks: in front of them, where
    the frozen backbone's module gets the same input, and behind them.

    Args:
        subject: The model and the backbone as it was before training.
        roles: The roles to read.

    Attributes:
        sites (dict): The sites of each role, from input to output.
    """

    def __init__(self, subject: Subject, roles: Sequence[str]) -> None:
        self._twin = {site.name: site.module for site in find_layout(subject.twin).all_sites()}
        self._backbone = subject.model.backbone
        self._layout = subject.model.petl.layout
        self.sites = {role: self._layout.sites((role,)) for role in roles}
        self._images = 0
        self._frozen: dict[str, tuple[Tensor, Tensor | None]] = {}
        self._found: dict[str, tuple[Tensor, Tensor]] = {}
        self._handles: list = []

    def __enter__(self) -> 'UpdateProbe':
        self._handles = [
            self._backbone.register_forward_pre_hook(self._begin),
        ]
        for sites in self.sites.values():
            for site in sites:
                self._handles += [
                    site.module.register_forward_pre_hook(
                        partial(self._before, site), prepend=True, with_kwargs=True
                    ),
                    site.module.register_forward_hook(partial(self._after, site)),
                ]
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._frozen, self._found = {}, {}

    def take(self) -> dict[str, tuple[list[Tensor], list[Tensor]]]:
        """Hands over what the last forward pass has given.

        Returns:
            Role -> the feature maps of the frozen path and of the updates, each a list over sites
            of tensors (B, tokens, channels).

        Raises:
            NoUpdateError: The method has left out a site.
        """
        found, self._found = self._found, {}
        for site in (site for sites in self.sites.values() for site in sites):
            if site.name not in found:
                raise NoUpdateError(f'{site.name} was not computed for these images')
        return {
            role: tuple(map(list, zip(*(found[site.name] for site in sites), strict=True)))
            for role, sites in self.sites.items()
        }

    def _begin(self, module: nn.Module, args: tuple) -> None:
        self._images = len(args[0])

    def _before(self, site: Site, module: nn.Module, args: tuple, kwargs: dict) -> None:
        if not self._layout.on_grid:  # prompts, which no layer shares with another
            return
        # Now, since a method may change the input, as prompts do.
        frozen = self._twin[site.name](*args, **kwargs)
        # MMCV's FFN adds the residual stream itself.
        residual = args[0] if site.role == 'block' else kwargs.get('identity')
        self._frozen[site.name] = frozen, residual

    def _after(self, site: Site, module: nn.Module, args: tuple, output: Tensor) -> None:
        if not self._layout.on_grid:
            return
        frozen, residual = self._frozen.pop(site.name)
        update = output - frozen
        if residual is not None:
            frozen = frozen - residual
        self._found[site.name] = self._as_map(site, frozen), self._as_map(site, update)

    def _as_map(self, site: Site, tokens: Tensor) -> Tensor:
        """Tokens (B, N, C), in the order of the grid at every site."""
        if self._layout.windowed and site.role in WINDOWED_ROLES:
            return self._layout.unwindow(self._layout.block_of(site), tokens, self._images)
        return tokens.flatten(1, -2)


def measure(
    subject: Subject,
    roles: Sequence[str] | None = None,
    split: str = 'test',
    max_images: int | None = None,
    batch_size: int = 16,
) -> dict[str, Any]:
    """Measures how alike frozen features and updates are between layers.

    Holds the features of one batch, and sums: about ``2 * 4 * batch_size`` bytes for each number
    that the sites of the roles give for one image.

    Args:
        subject: The model.
        roles: Roles to compare; None for all Linears that the method updates.
        split: ``train``, ``val`` or ``test``.
        max_images: At most so many images, evenly spaced over the split.
        batch_size: Images a batch, also the minibatch of CKA.

    Returns:
        What the JSON of ``tools/analyze.py homogeneity`` has for a subject.

    Raises:
        NoUpdateError: The method has no updates, or these are zero.
        AnalysisError: A role has a single site, so that there is nothing to compare.
    """
    roles = update_roles(subject.model.petl, roles)
    dataset = build_dataset(subject.cfg, split)
    indices = choose(len(dataset), max_images)
    probe = UpdateProbe(subject, roles)
    for role, sites in probe.sites.items():
        if len(sites) < 2:
            raise AnalysisError(f'there is only one site of the role {role!r}: nothing to compare')
    sums = {
        role: {path: SimilaritySums(len(sites)) for path in PATHS}
        for role, sites in probe.sites.items()
    }
    correct, held = 0, 0
    with torch.inference_mode(), probe:
        for images, samples in batches(subject, dataset, indices, batch_size):
            predicted = subject.model(images, samples, mode='predict')
            correct += sum(int(s.pred_label) == int(s.gt_label) for s in predicted)
            batch = probe.take()
            maps = [m for pair in batch.values() for side in pair for m in side]
            held = max(held, sum(m.nbytes for m in maps))
            for role, pair in batch.items():
                for path, features in zip(PATHS, pair, strict=True):
                    sums[role][path].update(features)
            del batch, maps, pair, features  # before the next batch brings its own
    results = {role: {path: sums[role][path].result() for path in PATHS} for role in probe.sites}
    _check_moved(subject, results)
    return {
        **subject.describe(),
        'data': describe_data(subject.cfg, dataset, split, len(indices)),
        'accuracy': _accuracy(subject, 100 * correct / len(indices), len(indices), split)
        if knows(subject, dataset)
        else None,
        'batch_size': batch_size,
        'feature_bytes': held,
        'roles': {
            role: _describe_role(sites, results[role]) for role, sites in probe.sites.items()
        },
    }


def _check_moved(subject: Subject, results: Mapping[str, Mapping[str, Mapping]]) -> None:
    """Refuses updates that are nothing but rounding, whose directions mean nothing."""
    for paths in results.values():
        floor = _NOISE * paths['frozen']['norm']
        still = paths['update']['norm'] <= floor
        for measure_ in MEASURES:
            values = paths['update'][measure_]
            values[still] = values[:, still] = torch.nan
        paths['update']['still'] = still
    if all(bool(paths['update']['still'].all()) for paths in results.values()):
        raise NoUpdateError(
            f'{subject.name}: no update: the output of {subject.method} is that of the frozen '
            'backbone at every site, so that there is nothing to compare. A method starts like '
            'this; give a trained checkpoint (CONFIG:CHECKPOINT)'
        )


def _describe_role(sites: Sequence[Site], paths: Mapping[str, Mapping[str, Tensor]]) -> dict:
    return {
        'sites': [site.name for site in sites],
        'blocks': [site.block for site in sites],
        'stages': [site.stage for site in sites],
        'without_update': [
            site.name
            for site, still in zip(sites, paths['update']['still'].tolist(), strict=True)
            if still
        ],
        **{
            path: {
                'norm': paths[path]['norm'].tolist(),
                **{name: paths[path][name].tolist() for name in MEASURES},
                'adjacent': {name: adjacent_mean(paths[path][name]) for name in MEASURES},
            }
            for path in PATHS
        },
    }


def _accuracy(subject: Subject, measured: float, images: int, split: str) -> dict[str, Any]:
    """The accuracy to draw: that of the adapter file, or else of the images that were seen."""
    for name in ('test', 'val'):
        value = (subject.metrics.get(name) or {}).get('accuracy/top1')
        if value is not None:
            source = f'{name} split, from the adapter file'
            return {'value': value, 'source': source, 'measured': measured}
    source = f'{images} images of the {split} split'
    return {'value': measured, 'source': source, 'measured': measured}
