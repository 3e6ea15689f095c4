"""Registries find our types, MMPretrain's and MMEngine's, and those of a third party."""

import subprocess
import sys
import textwrap
import threading
from collections import OrderedDict

import pytest
from mmengine.registry import DefaultScope
from mmpretrain import registry as mmpretrain_registry

from gleam_mm import registry


def test_every_registry_of_mmpretrain_has_a_child():
    for name in mmpretrain_registry.__all__:
        assert getattr(registry, name).parent is getattr(mmpretrain_registry, name)


@pytest.mark.parametrize(
    ('name', 'types'),
    [
        ('MODELS', ['GLEAM', 'PETLClassifier', 'VisionTransformer', 'BaseDataPreprocessor']),
        ('HOOKS', ['CheckClassesHook', 'VisualizationHook', 'LoggerHook']),
        ('METRICS', ['Accuracy', 'DumpResults']),
        ('DATASETS', ['VTAB1K', 'CustomDataset', 'ConcatDataset']),
    ],
)
def test_types_of_all_three_are_found(name, types):
    for type_ in types:
        assert getattr(registry, name).get(type_) is not None


@pytest.mark.parametrize('scope', [registry.own_scope, lambda: registry.scope_of({})])
def test_threads_that_build_leave_no_scope_behind(scope, monkeypatch):
    monkeypatch.setattr(DefaultScope, '_instance_dict', OrderedDict())
    first_is_in, second_is_in, found = threading.Event(), threading.Event(), []

    def first():
        with scope():
            first_is_in.set()
            second_is_in.wait(0.5)  # it has to wait for its turn

    def second():
        first_is_in.wait()
        with scope():
            second_is_in.set()
            thread.join(5)
            found.append(DefaultScope.get_current_instance().scope_name)

    thread, other = threading.Thread(target=first), threading.Thread(target=second)
    thread.start()
    other.start()
    thread.join()
    other.join()
    assert found == ['gleam_mm']
    assert DefaultScope.get_current_instance() is None


PLUGIN = """
    from mmpretrain.datasets import BaseDataset
    import numpy as np
    from torch import nn, ones_like

    from gleam_mm.petl import PETLMethod
    from gleam_mm.layouts import ViTLayout
    from gleam_mm.registry import DATASETS, LAYOUTS, MODELS


    @MODELS.register_module()
    class OutputScale(PETLMethod):
        def build(self, sites):
            for site in sites:
                scale = nn.Parameter(ones_like(site.module.bias))
                self.local[site.key] = nn.ParameterDict({'scale': scale})

        def adapt(self, site, x, y):
            return y * self.local[site.key]['scale']


    @LAYOUTS.register_module()
    class QuietLayout(ViTLayout):
        block_roles = {'proj': ('attn.proj',)}


    @DATASETS.register_module()
    class Stripes(BaseDataset):
        METAINFO = dict(classes=('flat', 'striped'))

        def load_data_list(self):
            image = np.zeros((32, 32, 3), np.uint8)
            striped = image.copy()
            striped[::2] = 255
            return [dict(img=[image, striped][i % 2], gt_label=i % 2) for i in range(16)]
"""

CONFIG = """
    custom_imports = dict(imports=['stripes_plugin'])
    default_scope = 'gleam_mm'
    model = dict(
        type='PETLClassifier',
        backbone=dict(
            type='VisionTransformer',
            arch=dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=64),
            img_size=32,
            patch_size=8,
        ),
        head=dict(type='LinearClsHead', in_channels=16, num_classes=2),
        petl=dict(type='OutputScale', sites=['proj']),
    )
    loader = dict(
        batch_size=8,
        dataset=dict(type='Stripes', ann_file='', pipeline=[dict(type='PackInputs')]),
        sampler=dict(type='DefaultSampler', shuffle=True),
    )
    train_dataloader = test_dataloader = loader
    train_cfg = dict(by_epoch=True, max_epochs=1)
    test_cfg = dict()
    test_evaluator = dict(type='Accuracy', topk=1)
    optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))
"""

RUN = """
    import gleam_mm
    from mmengine import Config
    from mmengine.runner import Runner

    runner = Runner.from_cfg(Config.fromfile('config.py', import_custom_modules=True))
    runner.train()
    metrics = runner.test()
    layout = runner.model.petl.layout
    print('LAYOUT', type(layout).__name__, 'METRICS', sorted(metrics))
"""


def test_third_party_components_from_a_config(tmp_path):
    """A method, a layout and a dataset that live in a package of somebody else's."""
    (tmp_path / 'stripes_plugin').mkdir()
    (tmp_path / 'stripes_plugin' / '__init__.py').write_text(textwrap.dedent(PLUGIN))
    work_dir = f'work_dir = {str(tmp_path / "work")!r}\n'
    (tmp_path / 'config.py').write_text(textwrap.dedent(CONFIG) + work_dir)
    (tmp_path / 'run.py').write_text(textwrap.dedent(RUN))
    result = subprocess.run(
        [sys.executable, 'run.py'], cwd=tmp_path, capture_output=True, text=True
    )
    assert 'LAYOUT QuietLayout METRICS' in result.stdout, result.stderr[-3000:]
    assert 'accuracy/top1' in result.stdout
