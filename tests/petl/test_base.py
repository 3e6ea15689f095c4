"""What the contract refuses, and what it does for methods that need more than a hook."""

import copy
import pickle

import pytest
import torch
from torch import nn

from gleam_mm.layouts import ForwardReplacement
from gleam_mm.petl import FullTuning, LoRA, MergeError, PETLMethod


def test_sites_must_be_a_list():
    with pytest.raises(TypeError, match=r"sites='qkv': choose a list .*, such as \['qkv'\]"):
        LoRA(sites='qkv')


def test_full_tuning_trains_the_backbone_by_its_own_names(vit):
    method = FullTuning()
    method.attach(vit)
    expected = {f'backbone.{name}': parameter for name, parameter in vit.named_parameters()}
    assert dict(method.trainable_parameters()) == expected


def test_merging_needs_a_backbone_and_happens_once(vit):
    method = LoRA(4)
    with pytest.raises(RuntimeError, match='LoRA is not attached'):
        method.merge()
    method.attach(vit)
    with pytest.raises(RuntimeError, match='LoRA is not merged'):
        method.unmerge()
    method.merge()
    with pytest.raises(RuntimeError, match=r'merged already; call unmerge\(\)'):
        method.merge()


class Shift(PETLMethod):
    """Adds 1 to what its sites write."""

    def adapt(self, site, x, y):
        return y + 1

    def fold(self, site, weight, bias):
        return weight, torch.ones_like(weight[:, 0]) + (0 if bias is None else bias)


def test_a_shift_merges_into_a_bias_but_not_into_nothing(vit, images):
    method = Shift(['fc1'])
    method.attach(vit)
    adapted = vit(images)[0]
    method.merge()
    torch.testing.assert_close(vit(images)[0], adapted)

    method = Shift(['proj', 'fc2'])
    vit.layers[1].ffn.layers[1].bias = None
    method.attach(vit)
    before = copy.deepcopy(vit.state_dict())
    with pytest.raises(MergeError, match=r"'layers\.1\.ffn\.layers\.1' has no bias"):
        method.merge()
    assert all(torch.equal(tensor, before[key]) for key, tensor in vit.state_dict().items())
    assert not method.merged


@pytest.mark.parametrize('role', ['block', 'ffn', 'attn'])
def test_where_no_weight_decides_nothing_is_merged(role, vit):
    method = Shift([role])
    method.attach(vit)
    with pytest.raises(MergeError, match='Shift cannot be merged: '):
        method.merge()
    assert not method.merged


def test_a_method_that_does_not_fold_says_so(vit):
    class Silent(PETLMethod):
        pass

    method = Silent(['qkv'])
    method.attach(vit)
    with pytest.raises(MergeError, match='Silent cannot be merged: it does not tell how'):
        method.merge()


class Doubling(nn.Module):
    """Stands for a method that works inside a module."""

    def forward_twice(self, x):
        return 2 * x


@pytest.mark.parametrize('copier', [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_a_replaced_forward_goes_along_with_copies_and_comes_back(copier):
    owner, module = Doubling(), nn.Identity()
    handle = ForwardReplacement(module, owner.forward_twice)
    x = torch.ones(1)
    with pytest.raises(RuntimeError, match='the forward of this Identity is replaced already'):
        ForwardReplacement(module, owner.forward_twice)
    twin_owner, twin, twin_handle = copier((owner, module, handle))
    assert twin(x) == module(x) == 2
    assert vars(twin)['forward'].__self__ is twin_owner
    twin_handle.remove()
    assert (twin(x), module(x)) == (1, 2)
    handle.remove()
    assert module(x) == 1
    assert 'forward' not in vars(module)
