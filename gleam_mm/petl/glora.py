"""GLoRA: generalized LoRA, and the supernet that it is chosen from."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gleam_mm.arguments import Positive
from gleam_mm.layouts import LINEAR_ROLES, Site
from gleam_mm.petl.lowrank import add_update, project
from gleam_mm.petl.supernet import Genes, Genotype, Supernet
from gleam_mm.registry import MODELS
from gleam_mm.shell import command

LOW_RANK, VECTOR, SCALAR, NONE = 'low-rank', 'vector', 'scalar', 'none'

# From the form with most parameters to the one with least.
FORMS = {
    'A': (LOW_RANK, VECTOR, SCALAR, NONE),
    'B': (LOW_RANK, VECTOR, SCALAR, NONE),
    'C': (LOW_RANK, VECTOR, NONE),
    'D': (VECTOR, SCALAR, NONE),
    'E': (VECTOR, SCALAR, NONE),
}


class Supports(nn.Module):
    """The support tensors A to E of one Linear (n -> m), each in its chosen form.

    Low-rank A and B are ``up`` (m, r) times ``down`` (r, n), low-rank C is ``up`` (n, r) times
    ``down`` (r, 1). Vectors and scalars have the shapes that the slices of these have: (m, 1) and
    (1, 1) of A and B, (n, 1) of C. D and E are of the shape (m,) or (1,). A tensor of the form
    ``none`` does not exist. All of them start at zero, but for ``down``.

    Args:
        in_features: Width n that the Linear reads.
        out_features: Width m that it writes.
        rank: Rank r of the low-rank forms.
        forms: The name of each tensor -> its form.
    """

    def __init__(
        self, in_features: int, out_features: int, rank: int, forms: Mapping[str, str]
    ) -> None:
        super().__init__()
        shapes = {
            'A': (out_features, in_features),
            'B': (out_features, in_features),
            'C': (in_features, 1),
        }
        for name, (rows, columns) in shapes.items():
            if forms[name] == LOW_RANK:
                up, down = torch.zeros(rows, rank), torch.empty(rank, columns)
                setattr(self, f'{name}_up', nn.Parameter(up))
                setattr(self, f'{name}_down', nn.Parameter(nn.init.xavier_uniform_(down)))
            elif forms[name] != NONE:
                rows = rows if forms[name] == VECTOR else 1
                setattr(self, f'{name}_up', nn.Parameter(torch.zeros(rows, 1)))
        for name in ('D', 'E'):
            if forms[name] != NONE:
                size = out_features if forms[name] == VECTOR else 1
                setattr(self, name, nn.Parameter(torch.zeros(size)))

    def slices(self, forms: Mapping[str, str]) -> dict[str, Tensor]:
        """The parameters, or parts of parameters, that other forms of the tensors have."""
        found = {}
        for name, form in forms.items():
            if form == NONE:
                continue
            if name in ('D', 'E'):
                tensor = getattr(self, name)
                found[name] = tensor if form == VECTOR else tensor[:1]
                continue
            up = getattr(self, f'{name}_up')
            if form == LOW_RANK:
                found[f'{name}_up'] = up
                found[f'{name}_down'] = getattr(self, f'{name}_down')
            else:
                found[f'{name}_up'] = up[:, :1] if form == VECTOR else up[:1, :1]
        return found

    def tensor(self, name: str, form: str) -> Tensor | None:
        """A, B or C as a matrix, or as what broadcasts to it; None for the form ``none``."""
        found = self.slices({name: form})
        if form == LOW_RANK:
            return found[f'{name}_up'] @ found[f'{name}_down']
        return found.get(f'{name}_up')


@MODELS.register_module()
class GLoRA(Supernet):
    r"""Generalized LoRA (Chavan et al., 2023, equation 10).

    Every Linear with weight :math:`W_0` and bias :math:`b_0` becomes

    .. math::
        f(x) = (W_0 + W_0 \odot A + B) x + W_0 C + b_0 + b_0 \odot D + E

    with A and B low-rank, a vector (one number an output), a scalar or none, C low-rank, a vector
    (one number an input) or none, D and E a vector, a scalar or none. Without ``subnet`` it is a
    supernet, which draws a form for each tensor of each Linear in every step. Vectors and scalars
    are the first column and the first number of the low-rank form's first factor, as in the paper's
    code, which also tells the shapes: a supernet has :math:`(2 (m + n) + n + 1) r + 2 m` parameters
    for a Linear n -> m.

    A Linear without a bias has no D.

    Args:
        rank: Rank r of the low-rank forms.
        subnet: None for a supernet. Else the path of a JSON file that ``tools/search.py`` wrote,
            or the name of each Linear -> ``dict(A='low-rank', B='vector', C='none', D='scalar',
            E='none')``, or one such dict for all Linears. Tensors left out are ``none``.
        sites: Roles to adapt.
        seed: Seed of the subnets that a supernet's training draws.
        blocks: Transformer blocks to adapt, as in :class:`~gleam_mm.petl.PETLMethod`.

    Raises:
        ValueError: ``subnet`` is out of range.
    """

    def __init__(
        self,
        rank: Positive = 4,
        subnet: Mapping | str | Path | None = None,
        sites: Sequence[str] = LINEAR_ROLES,
        seed: int = 0,
        blocks: Sequence[int] | None = None,
    ) -> None:
        super().__init__(sites, subnet, seed, blocks)
        self.rank = rank

    def build(self, sites: list[Site]) -> None:
        """Creates the support tensors of each Linear, in their largest or in the chosen form."""
        for site in sites:
            self.linear_of(site)
        if self.subnet is not None:
            self.subnet = _checked(self.subnet, sites)
        for site in sites:
            forms = self.subnet[site.name] if self.subnet else _largest(site)
            linear = site.module
            self.local[site.key] = Supports(
                linear.in_features, linear.out_features, self.rank, forms
            )

    def genes(self) -> Genes:
        """The form of each tensor of each Linear, as ``<Linear>.<A to E>``."""
        return {
            f'{site.name}.{name}': options
            for site in self.sites.values()
            for name, options in _options(site).items()
        }

    def express(self, genotype: Genotype) -> dict:
        """The name of each Linear -> the forms of its tensors."""
        return {
            site.name: {name: genotype[f'{site.name}.{name}'] for name in FORMS}
            for site in self.sites.values()
        }

    def check(self, subnet: Mapping) -> dict:
        """Completes and checks a subnet.

        Raises:
            ValueError: It names another Linear or form, or misses a Linear.
        """
        return _checked(subnet, list(self.sites.values()))

    def count(self, subnet: Mapping) -> int:
        """The number of parameters of a subnet."""
        return sum(
            _count(name, form, site.module, self.rank)
            for site in self.sites.values()
            for name, form in subnet[site.name].items()
        )

    def slices(self, subnet: Mapping) -> dict[str, Tensor]:
        """The state dict of the method with the given subnet, cut out of this supernet's."""
        subnet = self.check(subnet)
        return {
            f'local.{site.key}.{name}': tensor.detach().clone()
            for site in self.sites.values()
            for name, tensor in self.local[site.key].slices(subnet[site.name]).items()
        }

    def compute(self, site: Site, x: Tensor) -> Tensor:
        """Takes the place of the Linear's forward method."""
        linear = site.module
        if self._forms(site)['A'] != LOW_RANK:
            return self._adapted(site, x, type(linear).forward(linear, x))
        # One product with the adapted weight, where the frozen Linear's output would need two.
        return F.linear(x, *self._folded(site, site.weight, linear.bias))

    def _adapted(self, site: Site, x: Tensor, y: Tensor) -> Tensor:
        r"""Adapts the frozen Linear's output, where A is not low-rank.

        Neither A nor B becomes a matrix: :math:`W_0 \odot A` with a vector or a scalar scales what
        the frozen weight has given.
        """
        supports, forms = self.local[site.key], self._forms(site)
        linear = site.module
        shift = self._shift(site, lambda: site.weight, linear.bias)
        if forms['A'] != NONE:
            scale = supports.tensor('A', forms['A']).flatten()
            if linear.bias is not None:  # y has the bias, which A does not scale
                shift = _sum(shift, -scale * linear.bias)
            y = torch.addcmul(y, y, scale.to(y.dtype))
        if forms['B'] == LOW_RANK:
            y = add_update(*project(y, x, supports.B_down), supports.B_up, 1.0)
        elif forms['B'] != NONE:
            # A matrix whose columns are all the same multiplies the sum of the input.
            column = supports.tensor('B', forms['B']).flatten()
            y = y + (x.sum(-1, keepdim=True) * column).to(y.dtype)
        return y if shift is None else y + shift.to(y.dtype)

    def fold(self, site: Site, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Folds the tensors A to E into the weight and the bias of a Linear.

        Raises:
            MergeError: This is a supernet.
        """
        if self.is_supernet:
            raise self.refusal(
                'it is a supernet, many models in one. Choose a subnet with '
                f'{command("search")!r}, and merge that'
            )
        return self._folded(site, weight, bias)

    def _folded(
        self, site: Site, weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        supports, forms = self.local[site.key], self._forms(site)
        folded, shift = weight, self._shift(site, lambda: weight, bias)
        if (scale := supports.tensor('A', forms['A'])) is not None:
            folded = folded + weight * scale
        if (update := supports.tensor('B', forms['B'])) is not None:
            folded = folded + update
        if shift is not None and bias is not None:
            return folded, bias + shift
        return folded, bias if shift is None else shift.expand(weight.shape[0])

    def _forms(self, site: Site) -> Mapping[str, str]:
        return self.current()[site.name]

    def _shift(
        self, site: Site, weight: Callable[[], Tensor], bias: Tensor | None
    ) -> Tensor | None:
        """What is added to the bias: W_0 C + b_0 D + E, of the shape (m,) or (1,)."""
        supports, forms = self.local[site.key], self._forms(site)
        shift = None
        if (point := supports.tensor('C', forms['C'])) is not None:
            # Asked for where it is needed, for a quantised one is made anew each time.
            shift = (weight() @ point).flatten()
        for name in ('D', 'E'):
            if forms[name] != NONE:
                part = supports.slices({name: forms[name]})[name]
                shift = _sum(shift, part * bias if name == 'D' else part)
        return shift


def _sum(total: Tensor | None, part: Tensor) -> Tensor:
    return part if total is None else total + part


def _options(site: Site) -> dict[str, tuple[str, ...]]:
    """The forms that the tensors of a Linear may have."""
    return FORMS if site.module.bias is not None else {**FORMS, 'D': (NONE,)}


def _largest(site: Site) -> dict[str, str]:
    return {name: options[0] for name, options in _options(site).items()}


def _count(name: str, form: str, linear: nn.Linear, rank: int) -> int:
    rows, columns = linear.out_features, linear.in_features
    if name == 'C':
        rows, columns = columns, 1
    return {LOW_RANK: (rows + columns) * rank, VECTOR: rows, SCALAR: 1, NONE: 0}[form]


def _checked(subnet: Mapping, sites: Sequence[Site]) -> dict:
    if subnet.keys() <= FORMS.keys():
        subnet = {site.name: subnet for site in sites}
    names = [site.name for site in sites]
    if missing := [name for name in names if name not in subnet]:
        raise ValueError(f'subnet: the Linear {missing[0]!r} of the backbone is missing')
    if unknown := [name for name in subnet if name not in names]:
        raise ValueError(
            f'subnet: the backbone has no Linear {unknown[0]!r} that is adapted; it was found for '
            'another backbone, or for other `sites`'
        )
    checked = {}
    for site in sites:
        forms = subnet[site.name]
        options = _options(site)
        for name, form in forms.items():
            if form not in options.get(name, ()):
                known = ', '.join(options[name]) if name in options else 'of A, B, C, D, E only'
                raise ValueError(f'subnet: {site.name!r} has {name}={form!r}; choose {known}')
        checked[site.name] = {name: forms.get(name, NONE) for name in FORMS}
    return checked
