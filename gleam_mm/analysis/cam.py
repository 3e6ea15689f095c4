"""Class activation maps, by the library pytorch-grad-cam (as MMPretrain's vis_cam does)."""

from functools import partial
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from gleam_mm.analysis.pictures import Pictures
from gleam_mm.analysis.subjects import AnalysisError, Subject
from gleam_mm.layouts import Layout, Site

# What needs nothing but activations and gradients: by name, the library's class.
METHODS = {
    'gradcam': 'GradCAM',
    'gradcam++': 'GradCAMPlusPlus',
    'xgradcam': 'XGradCAM',
    'eigencam': 'EigenCAM',
    'eigengradcam': 'EigenGradCAM',
    'hirescam': 'HiResCAM',
    'layercam': 'LayerCAM',
}


class _Logits(nn.Module):
    """The classifier as the library wants one: from images to logits, with gradients inside."""

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self.model = subject.model

    def forward(self, images: Tensor) -> Tensor:
        # A frozen backbone has no gradients, unless its input asks for them.
        images = images.detach().requires_grad_()
        return self.model.head(self.model.extract_feat(images))


def measure(
    subject: Subject,
    pictures: Pictures,
    method: str = 'gradcam',
    target: int | None = None,
    site_name: str | None = None,
) -> dict[str, Any]:
    """Class activation maps of a few images.

    Args:
        subject: The model.
        pictures: The images.
        method: One of :data:`METHODS`.
        target: The class to explain; None for the predicted one of each image.
        site_name: The module of the backbone whose output is weighted. None for the first norm of
            the last block: behind it, tokens other than the class token reach the head only
            through the block's attention.

    Returns:
        What the JSON of ``tools/analyze.py cam`` has.

    Raises:
        ImportError: pytorch-grad-cam is not installed.
        AnalysisError: The method, the class or the module is none there is.
    """
    library = _library()
    if method not in METHODS:
        raise AnalysisError(f'--method {method}: choose among {", ".join(METHODS)}')
    classes = subject.cfg.model.head.num_classes
    if target is not None and not 0 <= target < classes:
        raise AnalysisError(f'--target {target}: the classes are 0 to {classes - 1}')
    layout = subject.model.petl.layout
    site = _choose_site(layout, site_name)
    targets = None
    if target is not None:
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        targets = [ClassifierOutputTarget(target)] * len(pictures.inputs)
    wrapped = _Logits(subject).eval()
    # Not in a `with` block, where the library would print an error and go on.
    cam = getattr(library, METHODS[method])(
        model=wrapped,
        target_layers=[site.module],
        reshape_transform=partial(_as_image, layout, site),
    )
    try:
        maps = cam(input_tensor=pictures.inputs, targets=targets)
        logits = cam.outputs.detach()
    finally:
        cam.activations_and_grads.release()
        wrapped.zero_grad()
    return {
        **subject.describe(),
        'cam': method,
        'site': site.name,
        'library': 'pytorch-grad-cam',
        'images': [
            {
                **pictures.describe(index, logits),
                'target': None if target is None else pictures.outputs[target],
                'map': maps[index].tolist(),
            }
            for index in range(len(pictures.inputs))
        ],
    }


def _library() -> ModuleType:
    try:
        import pytorch_grad_cam
    except ImportError as error:
        raise ImportError(
            "class activation maps need the extra 'analysis': pip install 'gleam-mm[analysis]', or "
            f'pip install grad-cam ({error})'
        ) from error
    return pytorch_grad_cam


def _choose_site(layout: Layout, name: str | None) -> Site:
    sites = [site for site in layout.all_sites() if site.role != 'patch_embed']
    if name is not None:
        found = [site for site in sites if site.name == name]
        if not found:
            raise AnalysisError(
                f'--site {name}: the backbone has no such site; norms are such as '
                + ', '.join(site.name for site in sites if site.role == 'norm')
            )
        return found[0]
    last = max(site.block for site in sites if site.block is not None)
    return next(site for site in sites if site.role == 'norm' and site.block == last)


def _as_image(layout: Layout, site: Site, tokens: Tensor) -> Tensor:
    """Tokens (B, N, C), or (B, H, W, C) in timm's Swin, as (B, C, H, W) without others."""
    grid = layout.grid(site)
    _, tokens = grid.split(tokens.flatten(1, -2))
    return tokens.unflatten(1, (grid.height, grid.width)).permute(0, 3, 1, 2)
