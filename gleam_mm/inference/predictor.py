"""Classes of pictures from an adapter file alone."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmpretrain.models.heads import MultiTaskHead
from torch import Tensor, nn

from gleam_mm.checkpoint import CheckpointError, read_adapter
from gleam_mm.config import recipes
from gleam_mm.datasets.images import UnreadableImageError
from gleam_mm.devices import usable
from gleam_mm.inference import preprocessing
from gleam_mm.inference import weights as backbone_weights
from gleam_mm.inference.pictures import (
    Picture,
    Preparation,
    is_folder,
    pictures_in,
    tells_numbers,
    told,
)
from gleam_mm.models import load_model, plain, timm_models
from gleam_mm.models.own_classifier import scores_of
from gleam_mm.models.parts import checked_part
from gleam_mm.registry import MODELS, scope_of

_BATCH = 32


class Predictor:
    """Tells classes of pictures by an adapter.

    The adapter file says the method, the backbone, the preprocessing and the classes. It does not
    have the backbone's weights. They are taken from ``weights``; or from where the environment
    variable ``GLEAM_WEIGHTS`` says, which is a file, or a folder with a file of the right name; or
    from the place that the adapter names, which may be in this package; or, for a model of timm,
    from what timm has downloaded. That they are the right ones is told by their fingerprint. It
    computes in 32 bits, whatever the precision was in training.

    Args:
        adapter: What ``tools/train.py`` or :func:`gleam_mm.save` has written.
        weights: A file with the weights of the backbone.
        device: Where to compute; by default on a GPU if there is one.
        config: The config of the training, its file or its recipe, for an adapter that lacks
            something or has a component that is built from no file.

    Raises:
        FileNotFoundError: The adapter is not there, or the backbone's weights are nowhere.
        CheckpointError: The adapter is damaged, describes what is not built from a file, has no
            preprocessing or no classifier, or was trained on other weights; or its model does not
            read RGB.

    Examples:
        >>> pets = gleam_mm.Predictor('pets.safetensors')
        >>> pets('cat.jpg')
        Prediction(label='Abyssinian', score=0.98)
    """

    def __init__(
        self,
        adapter: str | Path,
        weights: str | Path | None = None,
        device: str | torch.device | None = None,
        config: str | Path | Config | None = None,
    ) -> None:
        device = usable(device)
        tensors, metadata = read_adapter(adapter)
        cfg = recipes.load(config) if isinstance(config, str | Path) else config
        if 'model' in metadata:
            self.model, preprocessor = _plain_model(tensors, metadata, adapter, weights)
        else:
            self.model = _classifier(metadata, adapter, weights, cfg)
            preprocessor = self.model.data_preprocessor
        self._is_plain = 'model' in metadata
        self.preparation = Preparation(
            preprocessing.of_adapter(metadata, adapter, cfg), preprocessor
        )
        self.classes: list[str | int] | None = metadata.get('classes')
        self.model.to(device)
        preprocessor.to(device)
        self.model.eval()
        self.model.petl.fold_constants()  # which stays as it is

    def __call__(self, pictures: Picture | Sequence[Picture], top_k: int | None = None) -> Any:
        """Tells the classes of pictures.

        Args:
            pictures: A picture: its file, the bytes of one, a PIL image, or an array (H, W, 3),
                (H, W) or a tensor (3, H, W) of RGB, with integers from 0 to 255 or floats from 0 to
                1. Or a list of them. Or a folder, whose pictures are found at any depth.
            top_k: How many classes to tell of each picture, at least one. By default the best one
                alone.

        Returns:
            A :class:`Prediction`; with ``top_k`` a list of them, the best first. Of a list of
            pictures, a list of that. Of a folder, a dictionary by the names of the files. Of a
            model with several tasks, a dictionary of that by the names of the tasks. Of a
            :class:`~gleam_mm.models.RegressionHead`, the numbers by the names of the targets: a
            ``Prediction`` of one target, or a list of them. A model of timm with
            ``num_classes=1`` tells the one class always, and as the score the sigmoid of its logit:
            how likely the picture is of it.

        Raises:
            UnreadableImageError: A picture cannot be read.
            FileNotFoundError: The folder has no pictures.
            ValueError: The shape or the numbers of an array are none of a picture.
            ArgumentError: ``top_k`` is no such number.
        """
        if is_folder(pictures):
            files = pictures_in(pictures)
            return dict(zip(files, self._all(files, top_k), strict=True))
        if isinstance(pictures, list | tuple):
            return self._all(pictures, top_k)
        return self._all([pictures], top_k)[0]

    def each(self, pictures: Iterable[Picture], top_k: int | None = None) -> Iterator[Any]:
        """Tells the classes of pictures one after the other, whichever of them cannot be read.

        Yields:
            As a call returns of each picture; or, for one that cannot be read, the
            :class:`~gleam_mm.datasets.UnreadableImageError` that says why.
        """
        waiting: list[dict[str, Any] | UnreadableImageError] = []
        for picture in pictures:
            try:
                waiting.append(self.preparation(picture))
            except UnreadableImageError as error:
                waiting.append(error)
            if len(waiting) == _BATCH:
                yield from self._predict(waiting, top_k)
                waiting = []
        yield from self._predict(waiting, top_k)

    def _all(self, pictures: Iterable[Picture], top_k: int | None) -> list[Any]:
        outcomes = []
        for outcome in self.each(pictures, top_k):
            if isinstance(outcome, UnreadableImageError):
                raise outcome
            outcomes.append(outcome)
        return outcomes

    @torch.no_grad()
    def _predict(
        self, waiting: Sequence[dict[str, Any] | UnreadableImageError], top_k: int | None
    ) -> Iterator[Any]:
        prepared = [item for item in waiting if isinstance(item, dict)]
        found = iter(self._told(prepared, top_k) if prepared else ())
        for item in waiting:
            yield item if isinstance(item, UnreadableImageError) else next(found)

    def _told(self, prepared: list[dict[str, Any]], top_k: int | None) -> list[Any]:
        inputs = self.preparation.batch(prepared)['inputs']
        if self._is_plain:
            return told(scores_of(self.model(inputs)), self.classes, top_k)
        return _told_by(self.model.head, self.model.predict(inputs), self.classes, top_k)


def _told_by(
    head: Any, samples: Sequence[Any], classes: Sequence[str | int] | None, top_k: int | None
) -> list[Any]:
    """What a head tells by its samples; one of several tasks, by each of its heads."""
    if isinstance(head, MultiTaskHead):
        tasks = {
            task: _told_by(part, [sample.get(task) for sample in samples], None, top_k)
            for task, part in head.task_heads.items()
        }
        return [dict(zip(tasks, each, strict=True)) for each in zip(*tasks.values(), strict=True)]
    scores = torch.stack([sample.pred_score for sample in samples]).float()
    return told(scores, classes, top_k, tells_numbers(head))


def _classifier(
    metadata: Mapping[str, Any], adapter: str | Path, weights: str | Path | None, cfg: Config | None
) -> nn.Module:
    """The PETLClassifier that an adapter was trained with."""
    backbone = cfg.model.backbone if cfg is not None else metadata.get('backbone')
    return load_model(cfg, adapter, backbone_weights.options(backbone, adapter, weights))


def _plain_model(
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, Any],
    adapter: str | Path,
    weights: str | Path | None,
) -> tuple[nn.Module, nn.Module]:
    """The model that :func:`gleam_mm.save` has saved from, and its preprocessor."""
    described = metadata['model']
    if described is None:
        raise CheckpointError(
            f'{adapter}: does not say how to build its model; build it and call '
            'gleam_mm.load(model, path)'
        )
    try:
        bare: Any = timm_models.build(described)
        if not bare.num_classes:
            raise CheckpointError(
                f'{described["name"]} was built with num_classes=0, so that it gives features and '
                'no classes: build it and call gleam_mm.load(model, path)'
            )
        timm_models.require_rgb(bare, described)
        preprocessor = checked_part('data_preprocessor', metadata.get('data_preprocessor'))
        if not bare.state_dict().keys() <= tensors.keys():
            found = backbone_weights.of_timm(described, adapter, weights)
            bare = timm_models.build(described, found)
    except CheckpointError as error:
        raise CheckpointError(f'{adapter}: {error}') from error
    if precision := metadata.get('precision'):
        bare.to(getattr(torch, precision['model']))  # the frozen weights are rounded to that
    plain.load_parts(bare, tensors, metadata, adapter)
    bare.float()  # as pictures are
    with scope_of({}):
        return bare, MODELS.build(preprocessor)
