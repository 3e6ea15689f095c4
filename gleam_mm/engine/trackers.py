"""Trackers of experiments: TensorBoard, Weights & Biases and MLflow.

They are MMEngine's backends of its visualizer, but that a resumed training goes on in the run that
it began, and that what is tracked after MMEngine has closed a run, such as the test that follows a
training, goes there too.
"""

import json
import os
import uuid
from collections.abc import Collection, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.dist import is_main_process
from mmengine.runner import Runner
from mmengine.visualization.vis_backend import (
    BaseVisBackend,
    MLflowVisBackend,
    TensorboardVisBackend,
    WandbVisBackend,
)

from gleam_mm.engine.metrics import numbers_of
from gleam_mm.errors import UserError
from gleam_mm.fileio import write_bytes
from gleam_mm.registry import VISBACKENDS

RUNS = 'tracked.json'  # in the work directory: backend -> the run that the training has there


class _Tracker(BaseVisBackend):
    """What the trackers share: the work directory's run, opened again where it was closed.

    MMEngine gives every start of a training a folder of its own, ``<work_dir>/<time>/vis_data``,
    and with it ``save_dir``.
    """

    _save_dir: str
    _env_initialized: bool
    _run: str | None = None
    _trains = True

    @property
    def work_dir(self) -> Path:
        """The work directory of the training."""
        return Path(self._save_dir).absolute().parents[1]

    def add_config(self, config: Config, **kwargs: Any) -> None:
        """Records the config of a training that begins; a resumed one has recorded it.

        Raises:
            ValueError: What was written down of the runs of a resumed training is damaged.
        """
        known = _runs(self.work_dir) if config.get('resume') else {}
        self._run = known.get(type(self).__name__)
        self._trains = config.get('train_dataloader') is not None
        self.cfg = config
        if self._run is None:
            super().add_config(config, **kwargs)

    def _remember(self, run: str) -> None:
        """Writes down which run it is, for when the training is resumed."""
        self._run = run
        if self._trains:  # a test alone, in the same work directory, has a run of its own
            runs = {**_runs(self.work_dir), type(self).__name__: run}
            write_bytes(self.work_dir / RUNS, json.dumps(runs).encode())

    def close(self) -> None:
        """Ends the run for now; whatever is added later opens it again."""
        if self._env_initialized:
            self._env_initialized = False
            self._end()

    def _end(self) -> None:
        super().close()


@VISBACKENDS.register_module()
class TensorboardTracker(_Tracker, TensorboardVisBackend):
    """TensorBoard, one folder for all starts of a training: ``<work_dir>/tensorboard``."""

    def _init_env(self) -> None:
        own, self._save_dir = self._save_dir, str(self.work_dir / 'tensorboard')
        super()._init_env()
        self._save_dir = own
        self._remember('tensorboard')


@VISBACKENDS.register_module()
class WandbTracker(_Tracker, WandbVisBackend):
    """Weights & Biases: a run with the name of the work directory, in the project ``gleam-mm``.

    ``WANDB_PROJECT``, ``WANDB_MODE`` and the other variables of wandb hold. Offline it keeps what
    it logs in ``<work_dir>/wandb``, and a resumed training has a second folder with the same run.

    Args:
        save_dir: As in MMEngine.
        init_kwargs: Arguments of ``wandb.init``, before ours.
        **kwargs: As in MMEngine.
    """

    _init_kwargs: dict[str, Any]

    def __init__(self, save_dir: str, init_kwargs: dict | None = None, **kwargs: Any) -> None:
        super().__init__(save_dir, {**(init_kwargs or {})}, **kwargs)

    def _init_env(self) -> None:
        run = self._run or self._init_kwargs.get('id') or uuid.uuid4().hex[:12]
        ours = dict(
            project=os.environ.get('WANDB_PROJECT', 'gleam-mm'),
            name=self.work_dir.name,
            dir=str(self.work_dir),
            allow_val_change=True,
        )
        self._init_kwargs = {**ours, **self._init_kwargs, 'id': run, 'resume': 'allow'}
        super()._init_env()
        self._remember(run)

    def _end(self) -> None:
        self._wandb.finish()  # MMEngine's join() has gone


@VISBACKENDS.register_module()
class MLflowTracker(_Tracker, MLflowVisBackend):
    """MLflow: a run with the name of the work directory, in the experiment ``gleam-mm``.

    It is kept where MLflow keeps runs: by the server that ``MLFLOW_TRACKING_URI`` names, or in the
    current folder. ``MLFLOW_EXPERIMENT_NAME`` names another experiment.

    Args:
        save_dir: As in MMEngine.
        exp_name: The experiment.
        tracking_uri: The server.
        **kwargs: As in MMEngine.
    """

    _run_name: str | None
    _tracking_uri: str | None

    def __init__(
        self,
        save_dir: str,
        exp_name: str | None = None,
        tracking_uri: str | None = None,
        **kwargs: Any,
    ) -> None:
        named = exp_name or os.environ.get('MLFLOW_EXPERIMENT_NAME', 'gleam-mm')
        super().__init__(save_dir, named, tracking_uri=tracking_uri, **kwargs)

    def _init_env(self) -> None:
        import mlflow

        # MMEngine's own default is a folder of files, which MLflow has given up.
        self._tracking_uri = self._tracking_uri or mlflow.get_tracking_uri()
        name, self._run_name = self._run_name, None  # with which MMEngine would start another run
        super()._init_env()
        self._run_name = name
        if self._run is None:
            started = self._mlflow.start_run(run_name=name or self.work_dir.name)
        else:
            started = self._mlflow.start_run(run_id=self._run)
        self._remember(started.info.run_id)


TRACKERS: dict[str, type[_Tracker]] = {
    'tensorboard': TensorboardTracker,
    'wandb': WandbTracker,
    'mlflow': MLflowTracker,
}
"""Name, which is that of the package that it needs -> the backend."""


def _runs(work_dir: Path) -> dict[str, str]:
    """Backend -> its run, as a work directory has them."""
    file = work_dir / RUNS
    if not file.is_file():
        return {}
    try:
        runs = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        runs = None
    if not isinstance(runs, dict) or not all(isinstance(run, str) for run in runs.values()):
        raise ValueError(f'{file}: damaged: remove it, and trackers begin new runs')
    return runs


def track(cfg: Config, names: Collection[str]) -> None:
    """Makes a training show its curves in trackers, beside what the config names already.

    Args:
        cfg: The whole config; changed in place.
        names: Of :data:`TRACKERS`.

    Raises:
        UserError: The package of a tracker is not installed.
    """
    if not names:
        return
    if cfg.get('visualizer') is None:
        local = [dict(type='LocalVisBackend')]
        cfg.visualizer = ConfigDict(type='UniversalVisualizer', vis_backends=local)
    backends = cfg.visualizer.get('vis_backends') or []
    backends = [backends] if isinstance(backends, dict) else list(backends)
    for name in dict.fromkeys(names):
        if find_spec(name) is None:
            raise UserError(
                f'--track {name}: the package {name} is not installed: pip install {name}'
            )
        kind = TRACKERS[name].__name__
        if not any(backend.get('type') == kind for backend in backends):
            backends.append(dict(type=kind))
    cfg.visualizer.vis_backends = backends


def add_test(runner: Runner, metrics: Mapping[str, Any]) -> None:
    """Tracks the metrics of the test that follows a training, where there are trackers."""
    if not metrics:
        return
    told = {f'test/{name}': value for name, value in numbers_of(metrics).items()}
    for backend in runner.visualizer._vis_backends.values():
        if isinstance(backend, _Tracker) and is_main_process():
            backend.add_scalars(told, step=runner.iter)
            backend.close()
