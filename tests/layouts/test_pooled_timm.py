"""A backbone that pools as timm does, against timm's own classifiers."""

import pytest
import timm
import torch
from mmengine.config import Config
from torch import nn

from gleam_mm.checkpoint import FINGERPRINT, load_backbone, save_adapter
from gleam_mm.checkpoint.convert import convert
from gleam_mm.models import PETLClassifier
from gleam_mm.models.merge import merge_checkpoint
from gleam_mm.registry import MODELS

VIT = dict(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2)
SWIN = dict(img_size=32, patch_size=2, embed_dim=16, depths=(2, 2), num_heads=(2, 2), window_size=4)
NAMES = {
    'vit_base_patch16_224': VIT,
    'vit_base_patch16_224.mae': VIT,
    'vit_base_patch16_clip_224': VIT,
    'vit_base_patch16_siglip_224': VIT,  # attention pooling
    'vit_so400m_patch14_siglip_gap_224': VIT,
    'vit_small_patch14_dinov2': VIT,
    'vit_small_patch14_reg4_dinov2': VIT,  # registers
    'vit_medium_patch16_gap_256': VIT,  # mean, fc_norm
    'vit_medium_patch16_reg4_gap_256': VIT,
    'vit_betwixt_patch16_reg1_gap_256': VIT,
    'deit3_small_patch16_224': VIT,
    'swin_tiny_patch4_window7_224': SWIN,
}


@pytest.mark.parametrize('name', NAMES)
def test_pools_as_timm_does(name, images, tmp_path):
    reference = timm.create_model(name, num_classes=3, **NAMES[name]).eval()
    for parameter in reference.parameters():
        nn.init.normal_(parameter, std=0.3)
    converted = convert(reference.state_dict(), 'timm-pooled')
    assert all('head' in key or 'index' in key or 'mask' in key for key in converted.dropped)
    torch.save(converted.tensors, tmp_path / 'weights.pth')
    ours = MODELS.build(dict(type='PooledTIMMBackbone', model_name=name, **NAMES[name]))
    load_backbone(ours, tmp_path / 'weights.pth')  # strictly
    ours.eval()
    with torch.no_grad():
        features = reference.forward_features(images)
        expected = reference.forward_head(features, pre_logits=True)
        assert torch.equal(ours(images)[0], expected)

    model = PETLClassifier(
        backbone=ours,
        petl=dict(type='LoRA', rank=2),
        head=dict(type='LinearClsHead', in_channels=expected.shape[1], num_classes=3),
    )
    model.head.fc.load_state_dict(reference.get_classifier().state_dict())
    model.eval()
    torch.testing.assert_close(model(images), reference(images))
    model(images).sum().backward()
    assert all(p.grad is not None for _, p in model.petl.trainable_parameters())


def test_there_is_no_class_token_to_take():
    """As of SigLIP: the first token is a patch."""
    name = 'vit_base_patch16_siglip_224'
    backbone = dict(type='TIMMBackbone', model_name=name, **VIT)
    with pytest.raises(ValueError, match=r"'cls': this backbone has no class token.*PooledTIMM"):
        PETLClassifier(
            backbone=backbone,
            petl=dict(type='LoRA'),
            neck=dict(type='TokenPool', mode='cls'),
            head=dict(type='LinearClsHead', in_channels=32, num_classes=3),
        )


def test_merged_it_is_timms_own_classifier(images, tmp_path):
    name = 'vit_base_patch16_siglip_224'
    backbone = dict(type='PooledTIMMBackbone', model_name=name, **VIT)
    torch.save(MODELS.build(dict(backbone)).state_dict(), tmp_path / 'weights.pth')
    backbone['init_cfg'] = dict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth'))
    head = dict(type='LinearClsHead', in_channels=32, num_classes=3)
    described = dict(type='PETLClassifier', backbone=backbone, head=head, petl=dict(type='LoRA'))
    model = MODELS.build(described)
    for _, parameter in model.petl.trainable_parameters():
        nn.init.normal_(parameter, std=0.1)
    tensors = model.state_dict()
    metadata = {**model.description, 'backbone_fingerprint': model.backbone_fingerprint()}
    del tensors[FINGERPRINT]
    save_adapter(tmp_path / 'adapter.safetensors', tensors, metadata)
    cfg = Config(dict(model=described))
    out, _ = merge_checkpoint(cfg, tmp_path / 'adapter.safetensors', tmp_path / 'merged.pth')
    merged = timm.create_model(name, num_classes=3, checkpoint_path=str(out), **VIT).eval()
    model.eval()
    torch.testing.assert_close(merged(images), model(images), rtol=1e-5, atol=1e-5)
