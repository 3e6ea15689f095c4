"""The tuners of HF PEFT, on any backbone that has a layout."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gleam_mm.layouts import Site, dequantized
from gleam_mm.petl.attachments import MergeError
from gleam_mm.petl.base import PETLMethod
from gleam_mm.petl.hf_peft_config import check_config, config_class_of, options_of, tuner_class_of
from gleam_mm.registry import MODELS

if TYPE_CHECKING:
    from peft import PeftConfig

_ADAPTER = 'default'  # what PEFT calls an adapter that nobody named


class BaseLinear(nn.Linear):
    """The frozen Linear of a site as the base layer of a tuner: it computes, and owns nothing.

    Its weight and bias are those of the site's module, whichever these are at the time. They come
    as plain tensors: torch.compile cannot follow how PEFT asks parameters for quantisation.

    Args:
        method: The method that the site belongs to. It is referred to, never registered.
        key: The key of the site.
    """

    _method: PETLMethod

    def __init__(self, method: PETLMethod, key: str) -> None:
        nn.Module.__init__(self)
        self.__dict__['_method'] = method
        self._key = key

    @property
    def _linear(self) -> nn.Linear:
        """The Linear of the backbone that the method is attached to at present."""
        return self._method.sites[self._key].module

    # torch declares plain attributes where these are properties.
    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The weight of the site's module."""
        return dequantized(self._linear.weight).detach()

    @property
    def bias(self) -> Tensor | None:  # type: ignore[override]
        """The bias of the site's module."""
        bias = self._linear.bias
        return None if bias is None else bias.detach()

    @property
    def in_features(self) -> int:  # type: ignore[override]
        """The width that the site reads."""
        return self._linear.in_features

    @property
    def out_features(self) -> int:  # type: ignore[override]
        """The width that the site writes."""
        return self._linear.out_features

    def forward(self, x: Tensor) -> Tensor:
        """What the site's module computes, its hooks apart."""
        return type(self._linear).forward(self._linear, x)


@MODELS.register_module()
class HFPeft(PETLMethod):
    """A tuner of HF PEFT (https://github.com/huggingface/peft): DoRA, VeRA, IA3, OFT and others.

    The tuner adapts the Linears at the given sites, and names them as the backbone does, for
    options such as ``rank_pattern``. PEFT puts its layers in the place of Linears; here they stand
    beside the backbone, which keeps its modules and keys, and take the place of a Linear's forward
    method only. What the tuner shares between layers, such as the vector bank of VB-LoRA, is owned
    and saved once.

    Needs the extra ``peft``: ``pip install 'gleam-mm[peft]'``.

    Args:
        config: Options of PEFT's config class with its ``peft_type``, such as
            ``dict(peft_type='VERA', r=256)``. ``target_modules`` follows from ``sites``.
            ``feedforward_modules`` of IA3 are roles as well.
        sites: Roles to adapt, among ``qkv``, ``proj``, ``fc1`` and ``fc2``.
        blocks: Transformer blocks to adapt, as in :class:`~gleam_mm.petl.PETLMethod`.

    Raises:
        ImportError: HF PEFT is not installed.
        ValueError: The tuner is unknown, or needs more than Linears to adapt; or an option is
            unknown, or has no meaning here.

    Examples:
        >>> HFPeft(dict(peft_type='LORA', r=8, use_dora=True), sites=['qkv', 'proj'])
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        sites: Sequence[str] = ('qkv',),
        blocks: Sequence[int] | None = None,
    ) -> None:
        super().__init__(sites, blocks)
        self.config = check_config(dict(config), self.roles)
        self._trained: frozenset[str] = frozenset()
        self._register_state_dict_hook(_drop_aliases)
        self._register_load_state_dict_pre_hook(self._add_aliases)

    def build(self, sites: list[Site]) -> None:
        """Lets PEFT make the tuner's layers, and takes them over."""
        for site in sites:
            self.linear_of(site)
        widths = sorted({site.width for site in sites})
        if self.config['peft_type'] == 'FROD' and len(widths) > 1:
            raise ValueError(
                'config of HFPeft: FROD decomposes the weights of all blocks together, which needs '
                f'one token width; this backbone has {", ".join(map(str, widths))}. Name the '
                '`blocks` of one stage'
            )
        layers, shared = self._inject(sites)
        for name, module in shared.items():
            self.shared[name] = module
        for site, layer in zip(sites, layers, strict=True):
            layer.base_layer = BaseLinear(self, site.key)
            for name, module in list(layer.named_children()):
                if shared.get(name) is module:  # the layer may refer to it, and not own it
                    delattr(layer, name)
                    layer.__dict__[name] = module
            self.local[site.key] = layer
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        self._trained = frozenset(trained)

    def own_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What the tuner trains; some hold parameters that stay as they are."""
        for name, parameter in self.named_parameters():
            if name in self._trained:
                yield name, parameter

    def compute(self, site: Site, x: Tensor) -> Tensor:
        """Lets the tuner's layer take the place of the Linear's forward method."""
        return self.local[site.key](x)

    def fold(self, site: Site, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Merges a copy of the tuner's layer into a copy of the weights, as PEFT does."""
        layer = self.local[site.key]
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device='meta')
        linear.weight = nn.Parameter(weight.clone(), requires_grad=False)
        if bias is not None:
            linear.bias = nn.Parameter(bias.clone(), requires_grad=False)
        layer = copy.deepcopy(layer, {id(layer.base_layer): linear})
        try:
            layer.merge(safe_merge=True)
        except Exception as error:  # every tuner has its own way to refuse
            raise MergeError(
                f"HFPeft cannot be merged: PEFT's {self.config['peft_type']} refuses: "
                f'{error or type(error).__name__}'
            ) from error
        return linear.weight, linear.bias

    def _inject(self, sites: list[Site]) -> tuple[list[nn.Module], dict[str, nn.Module]]:
        """The tuner's layers, one a site, and what they share, by name."""
        peft_type, stand_in = self.config['peft_type'], _stand_in(sites)
        weights = [site.module.weight for site in sites]
        before = [(weight.data, weight.data.clone()) for weight in weights]
        frozen = [(p, p.requires_grad) for site in sites for p in site.module.parameters()]
        try:
            # Not inject_adapter_in_model: it refuses tuners that share state between layers.
            tuner = tuner_class_of(peft_type)(stand_in, self._peft_config(sites), _ADAPTER)
        except Exception as error:  # every tuner has its own way to refuse
            raise ValueError(
                f'config of HFPeft: {peft_type} does not fit the sites {", ".join(self.roles)}: '
                f'{error or type(error).__name__}'
            ) from error
        finally:
            for parameter, requires_grad in frozen:
                parameter.requires_grad_(requires_grad)
            changed = [
                _restore(weight, *data) for weight, data in zip(weights, before, strict=True)
            ]
        layers: list[Any] = [stand_in.get_submodule(site.name) for site in sites]
        for site, layer in zip(sites, layers, strict=True):
            if not hasattr(layer, 'base_layer'):
                raise ValueError(f'config of HFPeft: {peft_type} leaves {site.name!r} as it is')
        replaced = (
            layer.get_base_layer().weight is not weight
            for layer, weight in zip(layers, weights, strict=True)
        )
        if any(changed) or any(replaced):
            raise ValueError(
                f"config of HFPeft: {peft_type} with these options changes the backbone's own "
                'weights when it starts; choose another initialisation (of LoRA, '
                "init_lora_weights=True or 'gaussian')"
            )
        children = tuner.named_children()
        return layers, {name: module for name, module in children if module is not stand_in}

    def _peft_config(self, sites: list[Site]) -> 'PeftConfig':
        options = dict(self.config)
        config_class = config_class_of(options.pop('peft_type'))
        if roles := options.get('feedforward_modules'):
            options['feedforward_modules'] = [s.name for s in sites if s.role in roles]
        elif 'feedforward_modules' in options_of(config_class):
            options['feedforward_modules'] = []
        return config_class(target_modules=[site.name for site in sites], **options)

    def _canonical(self) -> dict[int, str]:
        """Identity of each parameter and buffer -> the name that it is saved under."""
        tensors = [*self.named_parameters(), *self.named_buffers()]
        return {id(tensor): name for name, tensor in tensors}

    def _aliases(self) -> dict[str, str]:
        """Further names of shared parameters and buffers -> the name that they are saved under."""
        canonical = self._canonical()
        tensors = [
            *self.named_parameters(remove_duplicate=False),
            *self.named_buffers(remove_duplicate=False),
        ]
        names = {name: canonical[id(tensor)] for name, tensor in tensors}
        return {name: saved for name, saved in names.items() if name != saved}

    def _add_aliases(self, state_dict: dict, prefix: str, *args: object) -> None:
        for name, saved in self._aliases().items():
            if prefix + saved in state_dict:
                state_dict[prefix + name] = state_dict[prefix + saved]


def _drop_aliases(method: HFPeft, state_dict: dict, prefix: str, local_metadata: dict) -> None:
    for name in method._aliases():
        state_dict.pop(prefix + name, None)


def _restore(weight: nn.Parameter, data: Tensor, values: Tensor) -> bool:
    """Gives a weight its own memory and values back; tells whether they had changed."""
    same = weight.is_meta or torch.equal(dequantized(weight.data), dequantized(values))
    weight.data = data
    if not same:
        data.copy_(values)
    return not same


def _stand_in(sites: list[Site]) -> nn.Module:
    """A tree of modules with, under the name of each site, a Linear of the same parameters."""
    root = nn.Module()
    for site in sites:
        *path, leaf = site.name.split('.')
        parent = root
        for name in path:
            if name not in parent._modules:
                parent.add_module(name, nn.Module())
            parent = parent.get_submodule(name)
        weight, bias = site.module.weight, site.module.bias
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device='meta')
        linear.weight, linear.bias = weight, bias
        parent.add_module(leaf, linear)
    return root
