"""Classes of pictures from an adapter file alone."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import mmengine.dataset
import numpy as np
import torch
from mmengine.config import Config
from PIL import Image
from torch import Tensor, nn

from gleam_mm.checkpoint import SCHEME, CheckpointError, read_adapter, resolve_path
from gleam_mm.config import recipes
from gleam_mm.datasets.images import SUFFIXES, UnreadableImageError, eight_bits, load_image
from gleam_mm.inference import preprocessing
from gleam_mm.models import load_model, plain, timm_models
from gleam_mm.models.building import checked_part
from gleam_mm.registry import MODELS, scope_of

WEIGHTS_VARIABLE = 'GLEAM_WEIGHTS'
_BATCH = 32

Picture = str | Path | np.ndarray | Image.Image | Tensor


class Prediction(NamedTuple):
    """A class of a picture.

    Attributes:
        label: The name of the class; its number where the adapter has no names.
        score: What the model gives it, from 0 to 1.
    """

    label: str | int
    score: float


class Predictor:
    """Tells classes of pictures by an adapter.

    The adapter file says the method, the backbone, the preprocessing and the classes. It does not
    have the backbone's weights. They are taken from ``weights``; or from where the environment
    variable ``GLEAM_WEIGHTS`` says, which is a file, or a folder with a file of the right name; or
    from the place that the adapter names, which may be in this package; or, for a model of timm,
    from what timm has downloaded. That they are the right ones is told by their fingerprint.

    Args:
        adapter: What ``tools/train.py`` or :func:`gleam_mm.save` has written.
        weights: A file with the weights of the backbone.
        device: Where to compute; by default on a GPU if there is one.
        config: The config of the training, its file or its recipe, for an adapter that lacks
            something or has a component that is built from no file.

    Raises:
        FileNotFoundError: The adapter is not there, or the backbone's weights are nowhere.
        CheckpointError: The adapter is damaged, describes what is not built from a file, has no
            preprocessing, or was trained on other weights.

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
        tensors, metadata = read_adapter(adapter)
        cfg = recipes.load(config) if isinstance(config, str | Path) else config
        if 'model' in metadata:
            self.model, self._preprocessor = _plain_model(tensors, metadata, adapter, weights)
        else:
            self.model = _classifier(metadata, adapter, weights, cfg)
            self._preprocessor = self.model.data_preprocessor
        self._pipeline = _pipeline(metadata, adapter, cfg)
        self.classes: list[str | int] | None = metadata.get('classes')
        if device is None:
            device = 'cuda' if torch.cuda.is_available() else 'cpu'
        self.model.to(device)
        self._preprocessor.to(device)
        self.model.eval()

    def __call__(self, pictures: Picture | Sequence[Picture], top_k: int | None = None) -> Any:
        """Tells the classes of pictures.

        Args:
            pictures: A picture: its file, a PIL image, or an array (H, W, 3), (H, W) or a tensor
                (3, H, W) of RGB, with whole numbers from 0 to 255 or others from 0 to 1. Or a list
                of them. Or a folder, whose pictures are found at any depth.
            top_k: How many classes to tell of each picture. By default the best one alone.

        Returns:
            A :class:`Prediction`; with ``top_k`` a list of them, the best first. Of a list of
            pictures, a list of that. Of a folder, a dictionary by the names of the files.

        Raises:
            UnreadableImageError: A picture cannot be read.
            FileNotFoundError: The folder has no pictures.
        """
        if isinstance(pictures, str | Path) and Path(pictures).is_dir():
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
                waiting.append(self._prepare(picture))
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

    def _prepare(self, picture: Picture) -> dict[str, Any]:
        if isinstance(picture, str | Path) and self._pipeline.loads:
            return self._pipeline({'img_path': str(picture)})
        rgb = _as_rgb(picture)
        # Files are loaded as BGR. Images that a dataset has in memory come in the order that the
        # preprocessor expects, which turns them round or does not.
        turned = self._pipeline.loads or getattr(self._preprocessor, '_channel_conversion', False)
        image = np.ascontiguousarray(rgb[..., ::-1]) if turned else rgb
        shape = image.shape[:2]
        return self._pipeline({'img': image, 'img_shape': shape, 'ori_shape': shape})

    @torch.no_grad()
    def _predict(
        self, waiting: Sequence[dict[str, Any] | UnreadableImageError], top_k: int | None
    ) -> Iterator[Any]:
        prepared = [item for item in waiting if isinstance(item, dict)]
        told = iter(self._told(self._scores(prepared), top_k) if prepared else ())
        for item in waiting:
            yield item if isinstance(item, UnreadableImageError) else next(told)

    def _scores(self, prepared: list[dict[str, Any]]) -> Tensor:
        batch = self._preprocessor(mmengine.dataset.pseudo_collate(prepared), False)
        if self._preprocessor is not getattr(self.model, 'data_preprocessor', None):
            return self.model(batch['inputs']).float().softmax(-1)
        samples = self.model.predict(batch['inputs'], batch.get('data_samples'))
        return torch.stack([sample.pred_score for sample in samples]).float()

    def _told(self, scores: Tensor, top_k: int | None) -> list[Any]:
        best = scores.topk(min(top_k or 1, scores.shape[-1]))
        pairs = zip(best.values.tolist(), best.indices.tolist(), strict=True)
        told = [
            [Prediction(self._label(i), score) for score, i in zip(*pair, strict=True)]
            for pair in pairs
        ]
        return [predictions[0] for predictions in told] if top_k is None else told

    def _label(self, index: int) -> str | int:
        return index if self.classes is None else self.classes[index]


def pictures_in(folder: str | Path) -> list[str]:
    """The pictures in a folder at any depth, in the order of their names.

    Raises:
        FileNotFoundError: There are none.
    """
    files = sorted(
        str(file)
        for file in Path(folder).rglob('*')
        if file.suffix.lower() in SUFFIXES and file.is_file()
    )
    if not files:
        raise FileNotFoundError(f'{folder}: no pictures in this folder')
    return files


def _as_rgb(picture: Picture) -> np.ndarray:
    """A picture as an array (H, W, 3) of uint8, RGB."""
    if isinstance(picture, str | Path):
        picture = load_image(picture)
    if isinstance(picture, Image.Image):
        return np.array(eight_bits(picture).convert('RGB'))
    if isinstance(picture, Tensor):
        tensor = picture.detach().cpu()
        picture = (tensor.permute(1, 2, 0) if tensor.ndim == 3 else tensor).numpy()
    if not isinstance(picture, np.ndarray):
        raise TypeError(f'{type(picture).__name__} is no picture: give a file, array or PIL image')
    array = picture[..., None] if picture.ndim == 2 else picture
    if array.ndim != 3 or array.shape[2] not in (1, 3):
        raise ValueError(
            f'a picture of shape {picture.shape}: arrays are (H, W, 3) or (H, W), tensors (3, H, W)'
        )
    if np.issubdtype(array.dtype, np.floating):
        if array.size and not (array.min() >= 0 and array.max() <= 1):
            raise ValueError(
                f'a picture with numbers from {array.min():g} to {array.max():g}: give whole ones '
                'from 0 to 255, or others from 0 to 1, without normalising them'
            )
        array = (array * 255).round().astype(np.uint8)
    if array.dtype != np.uint8:
        raise ValueError(f'a picture of {array.dtype}: give uint8, or numbers from 0 to 1')
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))


def _classifier(
    metadata: Mapping[str, Any], adapter: str | Path, weights: str | Path | None, cfg: Config | None
) -> nn.Module:
    """The PETLClassifier that an adapter was trained with."""
    backbone = (cfg.model.backbone if cfg is not None else metadata.get('backbone')) or {}
    named = backbone.get('init_cfg')
    named = named.get('checkpoint') if isinstance(named, Mapping) else None
    found = None
    if isinstance(named, str) or weights is not None:
        found = _find(weights, None if named is None or named.startswith(SCHEME) else named)
        found = found or named
        if not resolve_path(found).is_file():
            raise _nowhere(adapter, str(found))
    options: dict[str, Any] = {}
    if found is None:  # then it was drawn from its seed, if the fingerprint is right
        options['model.allow_random_backbone'] = True
    elif str(found) != named:
        options = {'model.backbone.init_cfg.checkpoint': str(found)}
        if named is None:
            options['model.backbone.init_cfg.type'] = 'Pretrained'
    return load_model(cfg, adapter, options)


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
        bare = timm_models.build(described)
        preprocessor = checked_part('data_preprocessor', metadata.get('data_preprocessor'))
        if not bare.state_dict().keys() <= tensors.keys():
            found = _find(weights, f'{described["name"]}.safetensors')
            found = found or timm_models.cached_weights(described)
            if found is None:
                raise _nowhere(adapter, f'the weights of {described["name"]}')
            bare = timm_models.build(described, found)
    except CheckpointError as error:
        raise CheckpointError(f'{adapter}: {error}') from error
    plain.load_parts(bare, tensors, metadata, adapter)
    with scope_of({}):
        return bare, MODELS.build(preprocessor)


def _find(weights: str | Path | None, name: str | None) -> Path | None:
    """The weights that the caller gives, or the environment; None if neither does."""
    given = weights or os.environ.get(WEIGHTS_VARIABLE)
    if not given:
        return None
    path = Path(given).expanduser()
    if weights is None and path.is_dir():  # which may have those of other backbones
        inside = path / Path(name or '').name
        return inside if name and inside.is_file() else None
    return path


def _nowhere(adapter: str | Path, what: str) -> FileNotFoundError:
    return FileNotFoundError(
        f"{adapter}: the backbone's weights are not there ({what}): say where they are with "
        f'weights= (--weights), or with {WEIGHTS_VARIABLE}, a file or a folder'
    )


def _pipeline(
    metadata: Mapping[str, Any], adapter: str | Path, cfg: Config | None
) -> preprocessing.Pipeline:
    if cfg is not None and (steps := preprocessing.of_config(cfg)) is not None:
        return preprocessing.Pipeline(steps, cfg)
    if metadata.get('pipeline') is None:
        raise CheckpointError(
            f'{adapter}: does not say how its pictures were prepared; give the config of its '
            'training as well'
        )
    try:
        return preprocessing.build(metadata['pipeline'])
    except CheckpointError as error:
        raise CheckpointError(
            f'{adapter}: {error}; give the config of its training as well'
        ) from error
