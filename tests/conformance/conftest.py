"""Each check runs for every method on every backbone."""

import pytest
from cases import CASES, build_classifier, make_images
from table import KINDS

ON_EVERY_KIND = (
    'test_identity',
    'test_merge',
    'test_image_size',
    'test_gradients_are_those_of_the_plain_pass_or_it_is_refused',
)
"""Checks that depend on how a backbone is wired. The others ask a method, and a ViT of one library
and a Swin of the other are enough for `make test`; the whole matrix is in `make test-slow`."""


def pytest_collection_modifyitems(items):
    for item in items:
        kind = getattr(item, 'callspec', None) and item.callspec.params.get('kind')
        if kind in ('swin', 'timm-vit') and item.originalname not in ON_EVERY_KIND:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(params=KINDS)
def kind(request):
    """The kind of backbone."""
    return request.param


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request, kind, record_property):
    """The method. A check that cannot pass must say why, and must not pass."""
    check = request.function.__name__.removeprefix('test_')
    row = CASES.index(request.param)
    record_property('conformance', [request.param.name, row, len(CASES), kind, check])
    if reason := request.param.gap(check, kind):
        request.node.add_marker(pytest.mark.xfail(reason=reason, strict=True))
    return request.param


@pytest.fixture
def classifier(case, kind):
    """The method on the backbone, under a head."""
    return build_classifier(case, kind)


@pytest.fixture
def images():
    return make_images(4)
