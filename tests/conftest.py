"""Fixtures that the whole suite shares: small backbones of every supported kind."""

import gleam_mm  # noqa: F401  (applies the patches that importing mmpretrain may need)

# isort: split

import copy
import gc
import signal

import pytest
import torch
from backbones import BACKBONES, CONFIGS, WIDTH, evaluating
from conformance.table import ConformanceTable
from experiments import begin_anew
from mmengine.registry import DefaultScope

from gleam_mm.registry import MODELS


def pytest_addoption(parser):
    parser.addoption(
        '--write-conformance',
        action='store_true',
        help='write docs/conformance.md instead of comparing it with what the run saw',
    )


def pytest_configure(config):
    # What is ignored is inherited: a suite that is started in the background would ignore Ctrl-C.
    for number, handler in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGHUP, signal.SIG_DFL),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
    if not hasattr(config, 'workerinput'):  # of several processes, the one that hears all reports
        table = ConformanceTable(write=config.getoption('--write-conformance'))
        config.pluginmanager.register(table)


@pytest.fixture(autouse=True, scope='module')
def _collected():
    """Frees the models of a module: hooks tie them into circles, which Python collects too late."""
    yield
    pytest_collection_finish()


def pytest_collection_finish():
    """Spares each collection of garbage the walk through what stays: modules, and all the tests."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _signals():
    """Gives signals their handlers back, which a tool that ended in this process ignores."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _experiments(monkeypatch):
    """Keeps apart what tests log that begin in the same second."""
    begin_anew(monkeypatch)


@pytest.fixture(autouse=True)
def _bfloat16(monkeypatch):
    """Computes in bfloat16 where a test says so, on CPUs that are slow in it as well."""
    monkeypatch.setattr('gleam_mm.models.precision.MULTIPLIES_BFLOAT16', True)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _scope():
    """Types are looked up as a config with ``default_scope = 'gleam_mm'`` looks them up."""
    with DefaultScope.overwrite_default_scope('gleam_mm'):
        yield


@pytest.fixture(params=BACKBONES)
def backbone(request):
    """Each supported kind of backbone in turn, tiny and with random weights."""
    return evaluating(BACKBONES[request.param]())


@pytest.fixture
def vit():
    """A tiny MMPretrain ViT: width 32, depth 2, a class token and a 4 x 4 grid."""
    return evaluating(BACKBONES['vit']())


@pytest.fixture
def images():
    return torch.randn(2, 3, 32, 32)


@pytest.fixture
def make_classifier():
    """Builds a tiny PETLClassifier; the seed decides the backbone's weights."""

    def make(petl='GLEAM', seed=0, num_classes=10, **options):
        torch.manual_seed(seed)
        if petl == 'GLEAM':
            options.setdefault('rank', 4)
        model = MODELS.build(
            dict(
                type='PETLClassifier',
                backbone=copy.deepcopy(CONFIGS['vit']),
                head=dict(type='LinearClsHead', in_channels=WIDTH, num_classes=num_classes),
                petl=dict(type=petl, **options),
            )
        )
        torch.manual_seed(seed)  # the same backbone for every method
        model.init_weights()
        return model

    return make
