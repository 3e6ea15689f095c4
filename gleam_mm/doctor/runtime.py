"""Loops, loaders, hooks, schedulers and metrics: whether they know what the config tells them."""

from mmengine.config import Config

from gleam_mm.doctor.findings import Findings
from gleam_mm.engine import checks
from gleam_mm.registry import scope_of


def check(cfg: Config, findings: Findings) -> None:
    """Examines what the runner builds of a config, without building it.

    Args:
        cfg: The whole config.
        findings: Where findings go.
    """
    with scope_of(cfg):
        for part in checks.parts_of(cfg):
            with findings.gathered(part.key):
                checks.check_part(part)
    with findings.gathered('env_cfg'):
        checks.check_environment(cfg)
