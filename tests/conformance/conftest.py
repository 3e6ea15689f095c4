"""Each check runs for every method on every backbone."""

import pytest
from cases import CASES, build_classifier, make_images
from table import KINDS


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
