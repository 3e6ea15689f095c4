"""A head for targets that are numbers, which MMPretrain has none for."""

from collections.abc import Sequence
from typing import Literal

import torch
from mmengine.model import BaseModule
from mmpretrain.structures import DataSample
from torch import Tensor, nn
from torch.nn import functional

from gleam_mm.arguments import Checked, Positive
from gleam_mm.registry import MODELS

_LOSSES = {
    'l1': functional.l1_loss,
    'l2': functional.mse_loss,
    'smooth_l1': functional.smooth_l1_loss,
}


@MODELS.register_module()
class RegressionHead(Checked, BaseModule):
    """A linear layer that predicts numbers, ``gt_score`` of the samples.

    The layer works with normalised targets, ``(target - mean) / std``, and so does the loss; what
    is predicted, ``pred_score``, is in the units of the data.

    Args:
        num_classes: The number of targets, which a dataset of numbers names as its classes.
        in_channels: The width of the features.
        loss: ``'l1'``, ``'l2'`` or ``'smooth_l1'``.
        mean: Of the targets in training, one for all or one each.
        std: Their standard deviation.
        init_cfg: Initialisation config, as in MMEngine.

    Raises:
        ArgumentError: An argument does not fit.
        ValueError: ``mean`` or ``std`` has another length, or a deviation is not above 0.
    """

    def __init__(
        self,
        num_classes: Positive,
        in_channels: Positive,
        loss: Literal['l1', 'l2', 'smooth_l1'] = 'smooth_l1',
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg or dict(type='Normal', layer='Linear', std=0.01))
        self.num_classes, self.in_channels = num_classes, in_channels
        self.fc = nn.Linear(in_channels, num_classes)
        self._loss = _LOSSES[loss]
        for name, value in (('mean', mean), ('std', std)):
            numbers = torch.as_tensor(value, dtype=torch.float32)
            if numbers.ndim and len(numbers) != num_classes:
                raise ValueError(f'{name}={value}: give one number, or {num_classes}')
            self.register_buffer(name, numbers, persistent=False)  # an option, which files say
        if not (self.std > 0).all():
            raise ValueError(f'std={std}: a deviation is above 0')

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Predicts (B, num_classes) of features (B, in_channels), in the units of the data."""
        return self.fc(feats[-1]) * self.std + self.mean

    def loss(self, feats: tuple[Tensor, ...], data_samples: list[DataSample]) -> dict[str, Tensor]:
        """The loss of normalised targets.

        Raises:
            ValueError: A sample has no numbers, or another number of them.
        """
        if not all('gt_score' in sample for sample in data_samples):
            raise ValueError(
                'RegressionHead: the samples have no gt_score; the dataset has to give numbers, '
                "as CSVDataset(target='number') does"
            )
        target = torch.stack([sample.gt_score for sample in data_samples])
        if target.shape[1] != self.num_classes:
            raise ValueError(
                f'RegressionHead: num_classes={self.num_classes}, but the samples have '
                f'{target.shape[1]} numbers'
            )
        return {'loss': self._loss(self.fc(feats[-1]), (target - self.mean) / self.std)}

    def predict(
        self, feats: tuple[Tensor, ...], data_samples: Sequence[DataSample | None] | None = None
    ) -> list[DataSample]:
        """Samples with ``pred_score``, what is predicted."""
        predicted = self(feats)
        samples = data_samples or [None] * len(predicted)
        return [
            (sample or DataSample()).set_pred_score(numbers)
            for sample, numbers in zip(samples, predicted, strict=True)
        ]
