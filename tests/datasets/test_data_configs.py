"""The dataset configs: few-shot recipe, normalisation by name, cache, and the data root."""

import numpy as np
import pytest
import torch
from mmpretrain.structures import DataSample
from vtab_tree import FGVC_CLASSES, make_fgvc_tree

from gleam_mm.config import recipes
from gleam_mm.config.recipes import RecipeError
from gleam_mm.datasets.fewshot import fgvc_task
from gleam_mm.registry import DATASETS, MODELS

FGVC = ['fgvc-aircraft', 'fgvc-cars', 'fgvc-flowers102', 'fgvc-food101', 'fgvc-pets']


def test_there_is_a_file_and_a_schedule_for_each_few_shot_set():
    names = [name for name in recipes.families()['datasets'] if name.startswith('fgvc-')]
    assert names == FGVC
    tasks = {recipes.load(f'vit-b_lora_{name}').train_dataloader.dataset.task for name in names}
    assert tasks == set(FGVC_CLASSES)


@pytest.mark.parametrize('name', FGVC)
def test_a_few_shot_recipe(name):
    options = {'train_dataloader.dataset.shots': 16, 'train_dataloader.dataset.seed': 2}
    cfg = recipes.load(f'vit-b_gleam-l_{name}', options)
    train, test = cfg.train_dataloader.dataset, cfg.test_dataloader.dataset
    assert (train.split, train.shots, train.seed, test.split) == ('train', 16, 2, 'test')
    assert train.task == test.task == fgvc_task(train.task)
    assert cfg.data_preprocessor.num_classes == FGVC_CLASSES[train.task]
    assert cfg.val_dataloader is None
    assert cfg.optim_wrapper.optimizer.lr == 5e-3
    assert cfg.model.head.loss.label_smooth_val == 0.1
    assert [(step.type, step.alpha) for step in cfg.data_preprocessor.batch_augments.augments] == [
        ('Mixup', 0.8),
        ('CutMix', 1.0),
    ]
    steps = {step.type: step for step in train.pipeline}
    assert steps['RandAugment'].magnitude_level == 9
    assert steps['RandomErasing'].erase_prob == 0.25
    assert 'RandAugment' not in {step.type for step in test.pipeline}


def test_augmentations_and_smoothing_run(tmp_path):
    make_fgvc_tree(tmp_path, ['oxford_pets'], shots=[2], size=48)
    cfg = recipes.load(
        'vit-b_lora_fgvc-pets',
        {'train_dataloader.dataset.shots': 2, 'train_dataloader.dataset.data_root': str(tmp_path)},
    )
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    np.random.seed(0)
    # Enough for every policy of RandAugment.
    items = [dataset[index] for index in range(len(dataset))]
    assert {item['inputs'].shape for item in items} == {(3, 224, 224)}
    preprocessor = MODELS.build({'type': 'ClsDataPreprocessor', **cfg.data_preprocessor})
    batch = {
        'inputs': torch.stack([item['inputs'] for item in items[:8]]),
        'data_samples': [item['data_samples'] for item in items[:8]],
    }
    mixed = preprocessor(batch, training=True)['data_samples']
    scores = torch.stack([sample.gt_score for sample in mixed])
    assert torch.allclose(scores.sum(1), torch.ones(8))
    assert ((scores > 0) & (scores < 1)).any()  # of two images
    head = MODELS.build({**cfg.model.head, 'num_classes': 37})
    features = torch.randn(8, 768)
    loss = head.loss((features,), mixed)['loss']
    smooth = 0.9 * scores + 0.1 / 37
    expected = -(smooth * head.fc(features).log_softmax(1)).sum(1).mean()
    assert torch.allclose(loss, expected)


def test_a_loss_in_the_config_wins_over_the_schedules():
    less = recipes.load('vit-b_lora_fgvc-cars', {'model.head.loss.label_smooth_val': 0.05})
    assert less.model.head.loss.type == 'LabelSmoothLoss'
    assert less.model.head.loss.label_smooth_val == 0.05
    other = recipes.load('vit-b_lora_fgvc-cars', {'model.head.loss.type': 'CrossEntropyLoss'})
    assert other.model.head.loss == {'type': 'CrossEntropyLoss'}


@pytest.mark.parametrize(
    ('name', 'white', 'black'), [('half', 1.0, -1.0), ('none', 1.0, 0.0), ('imagenet', None, None)]
)
def test_normalisation_by_name(name, white, black):
    cfg = recipes.load('vit-b_gleam-l_vtab-dtd', {'data_preprocessor.normalize': name})
    assert 'normalize' not in cfg.data_preprocessor  # what is dumped has the numbers
    preprocessor = MODELS.build({'type': 'ClsDataPreprocessor', **cfg.data_preprocessor})
    pixels = torch.tensor([255, 0], dtype=torch.uint8).reshape(1, 1, 1, 2).expand(1, 3, 1, 2)
    out = preprocessor({'inputs': pixels, 'data_samples': [DataSample()]})['inputs']
    if white is None:
        mean, std = (torch.tensor(v) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
        assert torch.allclose(out[0, :, 0, 0], (1 - mean) / std, atol=1e-3)
    else:
        assert out[0, :, 0, 0].tolist() == [white] * 3
        assert out[0, :, 0, 1].tolist() == [black] * 3


def test_an_unknown_normalisation_is_told(tmp_path):
    with pytest.raises(RecipeError, match=r"normalize='inception' is none of imagenet, half, none"):
        recipes.load('vit-b_lora_vtab-dtd', {'data_preprocessor.normalize': 'inception'})


def test_only_vtabs_training_images_are_cached():
    cfg = recipes.load('vit-b_gleam-l_vtab-dsprites-loc')
    assert cfg.train_dataloader.dataset.cache is True
    assert not cfg.test_dataloader.dataset.get('cache')
    assert cfg.train_dataloader.dataset.data_root is None
