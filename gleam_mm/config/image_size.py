"""Images as large as the backbone expects them, where a dataset's pipeline does not say."""

from mmengine.config import Config, ConfigDict

from gleam_mm.config.nested import dicts_in

_DEFAULT = 224  # of MMPretrain's backbones


def fill_image_size(cfg: Config) -> None:
    """Fills the sizes that are None in the pipelines of a config.

    A crop or ``Resize`` gets the size of the backbone. ``ResizeEdge``, from which the middle is cut
    out, gets 8/7 of it: 256 for 224.

    Args:
        cfg: The whole config; changed in place.
    """
    for _, transform in dicts_in(cfg._cfg_dict):
        for key in ('scale', 'crop_size'):
            if transform.get('type') is not None and transform.get(key, ...) is None:
                transform[key] = _size_for(_name(transform), image_size(cfg.model.backbone))


def _size_for(transform: str, size: tuple[int, int]) -> int | tuple[int, int]:
    height, width = size
    if transform == 'ResizeEdge':
        return round(max(size) * 8 / 7)
    if height == width:
        return height
    # MMCV's transforms take the width first, MMPretrain's the height.
    return (width, height) if transform in ('Resize', 'CenterCrop') else (height, width)


def image_size(backbone: ConfigDict) -> tuple[int, int]:
    """Height and width that a backbone expects."""
    size = backbone.get('img_size')
    if size is None and _name(backbone) in ('TIMMBackbone', 'PooledTIMMBackbone'):
        from timm.models import get_pretrained_cfg  # takes a second to import

        known = get_pretrained_cfg(backbone.model_name, allow_unregistered=True)
        size = known and known.input_size[-2:]
    size = size or _DEFAULT
    return (size, size) if isinstance(size, int) else tuple(size)


def _name(config: ConfigDict) -> str:
    """The name of a type, which new-style configs give as a class."""
    kind = config.type
    return kind if isinstance(kind, str) else kind.__name__
