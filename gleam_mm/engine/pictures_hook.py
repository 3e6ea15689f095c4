"""Pictures of a test's predictions, in a folder or in windows."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.model import BaseTTAModel
from mmengine.runner import Runner
from mmpretrain.engine.hooks import VisualizationHook
from mmpretrain.structures import DataSample

from gleam_mm.engine.dist import unwrapped
from gleam_mm.output import escape
from gleam_mm.registry import HOOKS


# Under MMPretrain's own name, so that it serves every config.
@HOOKS.register_module(name='VisualizationHook')
class PicturesHook(VisualizationHook):
    """MMPretrain's hook of this name, for test-time augmentation and all names of files as well.

    Of several augmented images of a picture it draws the one that is not flipped. Colours are those
    of the file. Pictures of one name in several folders get their number in front, so that none
    replaces another.

    Arguments are MMPretrain's.
    """

    _drawn = 0

    def before_val_epoch(self, runner: Runner) -> None:
        """Counts from the first picture on."""
        self._start()

    def before_test_epoch(self, runner: Runner) -> None:
        """Counts from the first picture on."""
        self._start()

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict, outputs: Sequence[DataSample]
    ) -> None:
        """Draws every ``interval``-th picture of a batch."""
        self._draw(runner, data_batch, outputs, runner.iter)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict, outputs: Sequence[DataSample]
    ) -> None:
        """Draws every ``interval``-th picture of a batch."""
        self._draw(runner, data_batch, outputs, 0)

    def _start(self) -> None:
        self._drawn = 0
        self._names: set[str] = set()

    def _draw(self, runner: Runner, batch: dict, outputs: Sequence[DataSample], step: int) -> None:
        if not self.enable:
            return
        first = math.ceil(self._drawn / self.interval) * self.interval
        for number in range(first, self._drawn + len(outputs), self.interval):
            place = number - self._drawn
            name = self._name_of(outputs[place], number)
            if self.out_dir is not None:
                self.draw_args['out_file'] = str(Path(self.out_dir) / f'{name}_{step}.png')
            classes = (self._visualizer.dataset_meta or {}).get('classes')
            self._visualizer.visualize_cls(
                image=_picture(runner, batch, place),
                data_sample=outputs[place],
                classes=None if classes is None else list(map(escape.figure, classes)),
                step=step,
                name=name,
                **self.draw_args,
            )
        self._drawn += len(outputs)

    def _name_of(self, sample: DataSample, number: int) -> str:
        name = Path(sample.get('img_path') or str(number)).name
        if name in self._names:
            name = f'{number}_{name}'
        self._names.add(name)
        return name


def _picture(runner: Runner, batch: dict, place: int) -> np.ndarray:
    """One picture of a batch, RGB, as it comes out of the data loader."""
    model, inputs = unwrapped(runner.model), batch['inputs']
    if isinstance(model, BaseTTAModel):
        samples = [augmented[place] for augmented in batch['data_samples']]
        upright = (i for i, sample in enumerate(samples) if not sample.get('flip'))
        inputs, model = inputs[next(upright, 0)], unwrapped(model.module)
    image: Any = inputs[place].permute(1, 2, 0).cpu().numpy().astype(np.uint8)
    # Where the model turns channels around, they come as OpenCV has them.
    return image[..., ::-1] if getattr(model.data_preprocessor, 'to_rgb', False) else image
