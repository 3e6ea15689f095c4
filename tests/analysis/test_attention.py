"""Attention weights against what the attention modules do with them; rollout against numpy."""

import numpy as np
import pytest
import torch

from gleam_mm.analysis.attention import AttentionProbe, measure, rollout
from gleam_mm.analysis.pictures import load_pictures
from gleam_mm.analysis.subjects import AnalysisError, build_dataset

KINDS = ['vit', 'swin', 'timm-vit', 'timm-swin']


@pytest.mark.parametrize('kind', KINDS)
def test_the_weights_give_the_output_of_the_attention(kind, make_subject, images):
    subject = make_subject('LoRA', kind)
    probe = AttentionProbe(subject)
    qkvs, mixed, masks = [], [], []
    for block in probe.blocks:
        attention = probe._attentions[block.block].module
        attention.qkv.register_forward_hook(lambda m, args, output: qkvs.append(output))
        attention.proj.register_forward_pre_hook(lambda m, args: mixed.append(args[0]))
    with torch.no_grad(), probe:
        subject.model.extract_feat(images)
    for block, weights, qkv, expected in zip(probe.blocks, probe.take(), qkvs, mixed, strict=True):
        heads = probe._attentions[block.block].module.num_heads
        values = qkv.unflatten(2, (3, heads, -1))[:, :, 2].transpose(1, 2)
        torch.testing.assert_close((weights @ values).transpose(1, 2).flatten(2), expected)
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
        masks.append(bool((weights < 1e-20).any()))
    assert any(masks) == ('swin' in kind)  # shifted windows mask


def test_rollout_against_numpy():
    weights = [torch.rand(1, 2, 4, 4).softmax(-1) for _ in range(3)]
    expected = np.eye(4)
    for layer in weights:
        expected = (0.5 * layer[0].mean(0).numpy() + 0.5 * np.eye(4)) @ expected
    found = rollout(weights)[0].numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)


@pytest.mark.parametrize('kind', KINDS)
def test_measure(kind, make_subject):
    subject = make_subject('GLEAM', kind)
    result = measure(subject, load_pictures(subject, 'test', ['3', '0', '5']))
    assert [image['image'] for image in result['images']] == ['3', '0', '5']
    swin = 'swin' in kind
    for image in result['images']:
        sizes = [np.shape(layer) for layer in image['maps']]
        assert sizes == ([(16, 16)] * 2 + [(8, 8)] * 2 if swin else [(4, 4)] * 2)
        if swin:
            assert image['rollout'] is None
            np.testing.assert_allclose([np.mean(layer) for layer in image['maps']], 1, rtol=1e-5)
        else:
            assert np.shape(image['rollout']) == (4, 4)
            assert 0 < np.sum(image['rollout']) < 1  # the class token keeps the rest


@pytest.mark.parametrize('named', [True, False])
def test_of_pictures_of_other_classes_the_models_own_are_told(named, make_subject):
    subject = make_subject('LoRA')  # of digits
    own = subject.classes if named else ('0', '1', '2')
    subject.classes = subject.classes if named else None
    subject.cfg.test_dataloader.dataset.update(task='letters', indices=8)
    letters = build_dataset(subject.cfg, 'test').metainfo['classes']
    for image in measure(subject, load_pictures(subject, 'test', ['0', '1']))['images']:
        assert image['label'] in letters
        assert image['predicted'] == own[image['predicted_index']]
        assert image['predicted'] not in letters


def test_shifted_windows_come_back_to_their_place(make_subject):
    """Attention that a bias gives to one place of the window shows where that place is."""
    subject = make_subject('LoRA', 'swin')
    with torch.no_grad():
        for block in subject.model.backbone.stages[0].blocks:
            attention = block.attn.w_msa
            attention.qkv.weight.zero_()
            attention.qkv.bias.zero_()
            subject.model.petl.local['stages/0/blocks/0/attn/w_msa/qkv'].up.zero_()
            subject.model.petl.local['stages/0/blocks/1/attn/w_msa/qkv'].up.zero_()
            attention.relative_position_bias_table.zero_()
    image = measure(subject, load_pictures(subject, 'test', ['0']))['images'][0]
    np.testing.assert_allclose(image['maps'][0], np.ones((16, 16)), rtol=1e-5)
    # Even within each part that the mask separates, and so all over the grid.
    np.testing.assert_allclose(image['maps'][1], np.ones((16, 16)), rtol=1e-5)


def test_prompts_do_not_disturb(make_subject):
    subject = make_subject('VPT-deep')
    image = measure(subject, load_pictures(subject, 'test', ['1']))['images'][0]
    assert np.shape(image['maps'][0]) == np.shape(image['rollout']) == (4, 4)


def test_what_computes_attention_itself_is_refused(make_subject):
    subject = make_subject('VPT-deep', 'swin')
    with pytest.raises(AnalysisError, match=r'VPT computes the attention of .* itself'):
        measure(subject, load_pictures(subject, 'test', ['0']))
