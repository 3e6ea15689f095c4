"""SSIAT: one adapter for all sessions, and prototypes that drift with it."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch import Tensor
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader

from gleam_mm.arguments import Checked, Natural, NonNegative, Positive
from gleam_mm.incremental.sessions import Session, Sessions
from gleam_mm.models import PETLClassifier, build_model
from gleam_mm.models.cosine_head import CosineClsHead
from gleam_mm.registry import scope_of


class Prototype(NamedTuple):
    """What is kept of a class: its features' mean (C), and a factor F (C, C) of their covariance.

    The covariance is F F^T.
    """

    mean: Tensor
    factor: Tensor

    @classmethod
    def of(cls, features: Tensor) -> 'Prototype':
        """That of features (N, C)."""
        mean = features.mean(0)
        covariance = (features - mean).T @ (features - mean) / max(len(features) - 1, 1)
        values, vectors = torch.linalg.eigh(covariance)
        return cls(mean, vectors * values.clamp_min(0).sqrt())

    def sample(self, number: int) -> Tensor:
        """Features that are distributed normally."""
        drawn = torch.randn(number, len(self.mean), device=self.mean.device)
        return self.mean + drawn @ self.factor.T


class SSIAT(Checked):
    """Semantic shift incremental adapter tuning (Tan et al., CVPR 2024).

    One adapter and one head of cosines (:class:`~gleam_mm.models.CosineClsHead`) are trained
    in every session, on its own images and between its own classes. Of classes before, prototypes
    are kept and no images. As the adapter moves on, so do features: by how the session's images
    moved, those nearest to a prototype counting most (equation 9), prototypes follow. Then the head
    is trained between all classes so far, on features drawn from the prototypes.

    Args:
        cfg: A whole config, with the dataset, the model and ``optim_wrapper``. Its head has all
            classes.
        sessions: The number of sessions.
        first_epochs: Epochs of the first session.
        epochs: Epochs of the others.
        sigma: The width of the Gaussian that weighs how features moved.
        shift: Whether prototypes follow at all.
        align_epochs: Epochs of the head on drawn features; 0 leaves it as the sessions trained it.
        align_rate: The learning rate of that.
        samples: How many features are drawn of a class.
        seed: Of the order of the classes.

    Attributes:
        model (PETLClassifier): The model.
        sessions (Sessions): The sessions.
        prototypes (dict[int, Prototype]): What is kept of the classes so far.

    Raises:
        ValueError: The head is no CosineClsHead, or there are too few classes.
    """

    def __init__(
        self,
        cfg: Config,
        sessions: Positive = 10,
        first_epochs: Positive = 20,
        epochs: Positive = 10,
        sigma: NonNegative = 4.0,
        shift: bool = True,
        align_epochs: Natural = 5,
        align_rate: NonNegative = 0.01,
        samples: Positive = 256,
        seed: Natural = 1993,
    ) -> None:
        self.cfg = cfg
        with scope_of(cfg):
            self.sessions = Sessions(cfg, sessions, seed)
            torch.manual_seed(cfg.get('randomness', {}).get('seed') or 0)
            self.model: PETLClassifier = build_model(cfg)
        if not isinstance(self.model.head, CosineClsHead):
            raise ValueError('model.head.type: SSIAT takes a CosineClsHead')
        self.model.to('cuda' if torch.cuda.is_available() else 'cpu')
        self.first_epochs, self.epochs = first_epochs, epochs
        self.sigma, self.shift = sigma, shift
        self.align_epochs, self.align_rate, self.samples = align_epochs, align_rate, samples
        self.prototypes: dict[int, Prototype] = {}

    def run(self, tell: Callable[[Session, float], object] = lambda *_: None) -> list[float]:
        """Learns all sessions.

        Args:
            tell: Called after each session with it and the accuracy.

        Returns:
            The accuracy after each session, in percent, on the test images of all classes so far:
            its last value is A_last, and its mean A_mean.
        """
        found = []
        with scope_of(self.cfg):
            for session in self.sessions:
                self.learn(session)
                found.append(self.accuracy(session))
                tell(session, found[-1])
        return found

    def learn(self, session: Session) -> None:
        """Learns one session."""
        before, _ = self.features(session.still)
        self._train(session)
        after, labels = self.features(session.still)
        if self.shift:
            self.prototypes = {
                c: p._replace(mean=p.mean + drift(p.mean, before, after, self.sigma))
                for c, p in self.prototypes.items()
            }
        for c in session.classes:
            self.prototypes[c] = Prototype.of(after[labels == c])
        self._align(session)

    @torch.no_grad()
    def accuracy(self, session: Session) -> float:
        """The accuracy on the test images of all classes so far, in percent."""
        self.model.eval()
        self.model.head.active = session.seen
        told = [
            sample.pred_label == sample.gt_label
            for batch in session.test
            for sample in self.model.test_step(batch)
        ]
        return 100 * torch.cat(told).float().mean().item()

    @torch.no_grad()
    def features(self, loader: DataLoader) -> tuple[Tensor, Tensor]:
        """The features (N, C) of images, and their labels."""
        self.model.eval()
        features, labels = [], []
        for batch in loader:
            data = self.model.data_preprocessor(batch, False)
            features.append(self.model.extract_feat(data['inputs'])[-1])
            labels += [sample.gt_label for sample in data['data_samples']]
        return torch.cat(features), torch.cat(labels)

    def _train(self, session: Session) -> None:
        """Trains the adapter, and the head between the classes of the session."""
        self.model.train()
        self.model.head.active = session.classes
        wrapper = build_optim_wrapper(self.model, self.cfg.optim_wrapper)
        epochs = self.epochs if session.index else self.first_epochs
        schedule = CosineAnnealingLR(wrapper.optimizer, epochs * len(session.train))
        for epoch in range(epochs):
            session.train.sampler.set_epoch(epoch)
            for batch in session.train:
                self.model.train_step(batch, wrapper)
                schedule.step()

    def _align(self, session: Session) -> None:
        """Trains the head between all classes so far."""
        head = self.model.head
        head.active = session.seen
        features = torch.cat([self.prototypes[c].sample(self.samples) for c in session.seen])
        labels = torch.tensor(session.seen, device=features.device).repeat_interleave(self.samples)
        optimizer = torch.optim.SGD(head.parameters(), self.align_rate, momentum=0.9)
        batch = self.cfg.train_dataloader.batch_size
        for _ in range(self.align_epochs):
            for chosen in torch.randperm(len(features)).split(batch):
                optimizer.zero_grad()
                F.cross_entropy(head((features[chosen],)), labels[chosen]).backward()
                optimizer.step()


def drift(mean: Tensor, before: Tensor, after: Tensor, sigma: float) -> Tensor:
    r"""How a mean (C) has moved, by features (N, C) before and after.

    .. math::
        \frac{\sum_i w_i \, (f'_i - f_i)}{\sum_i w_i}, \quad
        w_i = \exp \left( - \frac{\| f_i - \mu \|^2}{2 \sigma^2} \right)
    """
    distances = (before - mean).square().sum(1)
    weights = (-distances / (2 * sigma**2)).softmax(0)  # the same, where all w would be 0 as well
    return weights @ (after - before)
