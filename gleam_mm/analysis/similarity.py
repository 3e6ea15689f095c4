"""How alike the features of different layers are, summed up batch by batch."""

from collections.abc import Sequence

import torch
from torch import Tensor


class SimilaritySums:
    r"""Pairwise similarities of the feature maps of S layers, in memory that no dataset fills.

    A feature map is one vector an image: all its tokens and channels. For each pair of layers

    - the cosine similarity and the L2 distance of the two maps, averaged over images, where the
      layers' maps have the same shape;
    - linear CKA (Kornblith et al., 2019) in its minibatch form (Nguyen, Raghu and Kornblith, 2021,
      equations 2 to 4): with :math:`K = X X^\top` over the images of a batch and the unbiased
      estimator :math:`\mathrm{HSIC}_1` (Song et al., 2012),

      .. math::
          \frac{\sum_b \mathrm{HSIC}_1(K_b, L_b)}
               {\sqrt{\sum_b \mathrm{HSIC}_1(K_b, K_b) \sum_b \mathrm{HSIC}_1(L_b, L_b)}}

      which compares maps of different shapes too. All batches count alike, so that a smaller last
      one is left out; a batch needs four images.

    Kept are sums of S x S numbers. A map of zeros has no direction: images where one of a pair has
    none do not count for its cosine, which is NaN where no image counts.

    Args:
        layers: Number of layers S.
    """

    def __init__(self, layers: int) -> None:
        self.images = 0
        self._norm = torch.zeros(layers, dtype=torch.float64)
        self._distance = torch.zeros(layers, layers, dtype=torch.float64)
        self._cosine = torch.zeros_like(self._distance)
        self._directed = torch.zeros_like(self._distance)  # images that count for the cosine
        self._hsic = torch.zeros_like(self._distance)
        self._same_shape = torch.zeros(layers, layers, dtype=torch.bool)
        self._batch_size: int | None = None

    def update(self, maps: Sequence[Tensor]) -> None:
        """Adds a batch.

        Args:
            maps: The feature maps of each layer, of shape (B, ...).
        """
        size = len(maps[0])
        shapes = [tuple(m.shape[1:]) for m in maps]
        for shape in dict.fromkeys(shapes):
            group = torch.tensor([i for i, other in enumerate(shapes) if other == shape])
            self._same_shape[group[:, None], group] = True
            for image in range(size):
                self._add_image(group, torch.stack([maps[i][image] for i in group]).flatten(1))
        self.images += size
        if self._batch_size is None:
            self._batch_size = size
        if size == self._batch_size and size >= 4:
            grams = torch.stack([_gram(m.flatten(1)) for m in maps])
            self._hsic += unbiased_hsic(grams).cpu()

    def result(self) -> dict[str, Tensor]:
        """The means.

        Returns:
            ``norm`` of shape (S,) and ``cosine``, ``l2`` and ``cka`` of shape (S, S), in double
            precision, with NaN for what is not defined.
        """
        own = self._hsic.diagonal().clamp_min(0)
        distance = (self._distance / self.images).masked_fill(~self._same_shape, torch.nan)
        return {
            'norm': self._norm / self.images,
            'cosine': self._cosine / self._directed,
            'l2': distance,
            'cka': self._hsic / (own[:, None] * own).sqrt(),
        }

    def _add_image(self, group: Tensor, vectors: Tensor) -> None:
        # In double precision: distances of vectors that are nearly equal are differences of sums.
        vectors = vectors.double()
        products = (vectors @ vectors.T).cpu()
        squares = products.diagonal()
        norms = squares.sqrt()
        distance = (squares[:, None] + squares - 2 * products).clamp_min(0).sqrt()
        lengths = norms[:, None] * norms
        directed = lengths > 0
        rows = group[:, None]
        self._norm[group] += norms
        self._distance[rows, group] += distance.fill_diagonal_(0)
        self._directed[rows, group] += directed
        self._cosine[rows, group] += torch.where(directed, products / lengths, 0.0)


def unbiased_hsic(grams: Tensor) -> Tensor:
    r"""The unbiased estimator :math:`\mathrm{HSIC}_1` of all pairs (Song et al., 2012, equation 5).

    Args:
        grams: Gram matrices of S layers over n >= 4 images, of shape (S, n, n).

    Returns:
        A matrix of shape (S, S).
    """
    n = grams.shape[-1]
    grams = grams - torch.diag_embed(grams.diagonal(dim1=1, dim2=2))
    rows = grams.sum(2)
    totals = rows.sum(1)
    traces = grams.flatten(1) @ grams.flatten(1).T
    constant = totals[:, None] * totals / ((n - 1) * (n - 2))
    return (traces + constant - 2 / (n - 2) * (rows @ rows.T)) / (n * (n - 3))


def adjacent_mean(matrix: Tensor) -> float:
    """The mean over pairs of adjacent layers where it is defined; NaN where it nowhere is."""
    return torch.nanmean(matrix.diagonal(1)).item()


def _gram(vectors: Tensor) -> Tensor:
    vectors = vectors.double()
    return vectors @ vectors.T
