"""An adapted backbone in a segmentor of mmsegmentation, where that is installed."""

import copy

import pytest
import torch
from backbones import CONFIGS
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData

pytest.importorskip('mmseg', reason='needs mmsegmentation')

from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

HEAD = dict(
    type='UPerHead',
    in_channels=[16, 32],
    in_index=[0, 1],
    pool_scales=(1, 2),
    channels=8,
    num_classes=3,
    norm_cfg=dict(type='BN'),
    align_corners=False,
    loss_decode=dict(type='CrossEntropyLoss'),
)


def segmentor(petl):
    normalize = dict(mean=[127.5] * 3, std=[127.5] * 3, size=(32, 32))
    model = dict(
        type='EncoderDecoder',
        data_preprocessor=dict(type='SegDataPreProcessor', **normalize),
        backbone=dict(
            type='gleam_mm.PETLBackbone',
            backbone=dict(copy.deepcopy(CONFIGS['swin']), out_indices=(0, 1)),
            petl=petl,
            allow_random_backbone=True,
        ),
        decode_head=HEAD,
        test_cfg=dict(mode='whole'),
    )
    with DefaultScope.overwrite_default_scope('mmseg'):
        built = MODELS.build(Config(dict(model=model)).model)
        built.init_weights()
    return built


def sample():
    size = dict(img_shape=(32, 32), ori_shape=(32, 32), pad_shape=(32, 32))
    labels = PixelData(data=torch.randint(0, 3, (1, 32, 32)))
    return SegDataSample(metainfo=size, gt_sem_seg=labels)


@pytest.mark.parametrize('petl', [dict(type='GLEAM', rank=2), dict(type='LoRA', rank=2)])
def test_a_segmentor_trains_predicts_and_has_slim_checkpoints(petl):
    torch.manual_seed(0)
    model = segmentor(petl)
    frozen = copy.deepcopy(model.backbone.backbone.state_dict())
    data = dict(
        inputs=[torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8) for _ in range(2)],
        data_samples=[sample() for _ in range(2)],
    )
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = OptimWrapper(torch.optim.Adam(trained, lr=0.01))
    model.train()
    losses = [float(model.train_step(copy.deepcopy(data), optimizer)['loss']) for _ in range(6)]
    assert losses[-1] < losses[0]
    for name, tensor in model.backbone.backbone.state_dict().items():
        assert torch.equal(tensor, frozen[name])
    state = model.state_dict()
    assert not [key for key in state if key.startswith('backbone.backbone.')]
    again = segmentor(petl)
    again.load_state_dict(state)
    maps = [one.eval().test_step(copy.deepcopy(data))[0].seg_logits.data for one in (model, again)]
    assert maps[0].shape == (3, 32, 32)
    assert torch.equal(*maps)
