"""What `import gleam_mm` costs, and that all is found after it."""

import subprocess
import sys

import pytest

PROGRAMS = {
    'nothing large is imported': """
        import sys
        import gleam_mm
        large = {'cv2', 'datasets', 'matplotlib', 'mmcv', 'mmpretrain', 'optuna', 'peft', 'pandas'}
        large |= {'scipy', 'sklearn', 'sympy', 'timm', 'torchvision', 'transformers'}
        large |= {'mmengine.model', 'mmengine.optim', 'mmengine.runner', 'torch.distributed.fsdp'}
        assert not large & sys.modules.keys(), large & sys.modules.keys()
    """,
    'transformers are left alone by what trains': """
        import sys
        import gleam_mm
        gleam_mm.engine, gleam_mm.models, gleam_mm.petl
        assert 'peft' not in sys.modules
        assert 'transformers' not in sys.modules
    """,
    'the scope is found': """
        import gleam_mm
        from mmengine.registry import DefaultScope
        from mmpretrain.registry import MODELS
        assert type(MODELS.build(dict(type='gleam_mm.LoRA'))) is gleam_mm.petl.LoRA
        with DefaultScope.overwrite_default_scope('gleam_mm'):
            MODELS.build(dict(type='GLEAM', rank=2))
    """,
    'the optimizer of transformers is found': """
        import sys
        import torch
        from gleam_mm.registry import OPTIMIZERS
        parameters = [torch.nn.Parameter(torch.ones(1))]
        config = dict(type='Adafactor', params=parameters, lr=0.5, relative_step=False)
        assert 'Adafactor' in OPTIMIZERS and 'transformers' not in sys.modules
        built = OPTIMIZERS.build(config)
        import transformers
        assert type(built) is transformers.Adafactor
        assert built.param_groups[0]['lr'] == 0.5
    """,
    'what is not there': """
        import gleam_mm
        try:
            gleam_mm.attach_all
        except AttributeError as error:
            assert str(error) == "module 'gleam_mm' has no attribute 'attach_all'"
        else:
            raise AssertionError
        for name in gleam_mm.__all__:
            getattr(gleam_mm, name)
    """,
}


@pytest.mark.parametrize('name', PROGRAMS)
def test_in_a_process_of_its_own(name):
    lines = PROGRAMS[name].strip().splitlines()
    program = '\n'.join(line.removeprefix(' ' * 8) for line in lines)
    if 'Adafactor' in program:
        pytest.importorskip('transformers')
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
