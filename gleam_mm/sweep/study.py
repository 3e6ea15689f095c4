"""A sweep in an Optuna storage: its settings, its trials, and who runs which.

Every training of the sweep is registered as a waiting trial and claimed by changing its state to
running, which the database lets only one worker do. A sampler that suggests points to each worker
could give the same one to two of them. Workers need no leader: each registers what is missing
(trials of dead workers, final trials whose options are now known), and should two workers register
the same training at once, only the trial with the lowest number is ever run.
"""

import contextlib
import dataclasses
import json
import math
import uuid
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState

from gleam_mm.errors import UserError
from gleam_mm.messages import shown
from gleam_mm.output.escape import terminal
from gleam_mm.shell import command
from gleam_mm.sweep import schema
from gleam_mm.sweep.cells import COMPLETE, FAILED, RUNNING, WAITING, Cell, Trial, cells_of
from gleam_mm.sweep.claim import Claim
from gleam_mm.sweep.places import find
from gleam_mm.sweep.plan import Job, Sweep, options_text
from gleam_mm.sweep.results import Result
from gleam_mm.sweep.storage import connect, explained, patiently

MISSED_BEATS = 3

_SETTINGS = 'gleam_sweep'  # attribute of the study
_IDENTITY = 'gleam_id'  # another one: what tells the study from a deleted one of the same name
_JOB = 'job'  # attribute of a trial
_STATES = {
    TrialState.WAITING: WAITING,
    TrialState.RUNNING: RUNNING,
    TrialState.COMPLETE: COMPLETE,
    TrialState.FAIL: FAILED,
}


class SweepStudy:
    """An open study of a sweep.

    Args:
        storage: Optuna's storage.
        url: What to call it in messages.
        name: Name of the study.
        sweep: The settings of the sweep.

    Attributes:
        identity: What tells the study from others of the same name.
    """

    def __init__(self, storage: RDBStorage, url: str, name: str, sweep: Sweep) -> None:
        self.storage, self.url, self.name, self.sweep = storage, url, name, sweep
        self._study = optuna.load_study(study_name=name, storage=storage)  # caches what is finished
        self._id = storage.get_study_id_from_name(name)
        self.identity = storage.get_study_user_attrs(self._id)[_IDENTITY]
        self._ended: dict[int, Trial] = {}  # what changes no more is checked once
        storage.heartbeat_interval = sweep.heartbeat
        storage.grace_period = MISSED_BEATS * sweep.heartbeat

    def cells(self) -> list[Cell]:
        """Every training of the sweep, as it stands.

        Raises:
            UserError: The database says something that no sweep does.
        """
        return cells_of(self.sweep, self._trials())

    def results(self) -> list[Result]:
        """What every training of the sweep came to."""
        return [
            Result(
                backbone=self.sweep.backbone,
                method=cell.job.method,
                dataset=cell.job.dataset,
                phase=cell.job.phase,
                seed=cell.job.seed,
                options=dict(cell.job.options),
                state=cell.state,
                accuracy=cell.accuracy,
                parameters=cell.attribute('parameters'),
                seconds=cell.attribute('seconds'),
                curve=cell.attribute('curve') or [],
                error=cell.error,
                log=cell.attribute('log'),
            )
            for cell in self.cells()
        ]

    def check_options(self) -> None:
        """Refuses to make configs of options that name what is not registered.

        Raises:
            UserError: There are some; the message names the key.
        """
        try:
            schema.check_options(self.sweep)
        except ValueError as error:
            raise UserError(f'{self.url}: study {terminal(self.name)}: {error}') from error

    def register(self) -> None:
        """Makes waiting trials of all trainings that may run now and have no live trial.

        First it ends the trials of workers that have been silent for too long.
        """

        def end_silent() -> None:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore', ExperimentalWarning)
                fail_stale_trials(self._study)

        patiently(end_silent)
        for cell in self.cells():
            if cell.state == WAITING and cell.ready and cell.trial is None:
                self._add(cell.job)

    def retry_failed(self) -> int:
        """Makes waiting trials of all failed trainings; returns how many."""
        failed = [cell.job for cell in self.cells() if cell.state == FAILED]
        for job in failed:
            self._add(job)
        return len(failed)

    def claim(self, worker: Mapping[str, Any]) -> 'Claim | None':
        """Takes the waiting trial whose turn it is, unless other workers take all there are.

        Args:
            worker: What to tell of the worker: ``host`` and ``pid``.
        """
        for cell in sorted(self.cells(), key=lambda cell: self.sweep.turn(cell.job)):
            if cell.state == WAITING and cell.trial is not None:
                claim = Claim(self.storage, self._trial_id(cell.trial), cell.job)
                if claim.take(worker):
                    return claim
        return None

    def end_trials_of(self, workers: Iterable[Mapping[str, Any]]) -> None:
        """Ends the running trials of workers that are known to be dead, before they are missed."""
        dead = list(workers)
        for cell in self.cells():
            if cell.state == RUNNING and cell.attribute('worker') in dead:
                trial_id = self._trial_id(cell.trial)
                with contextlib.suppress(UpdateFinishedTrialError):
                    patiently(
                        lambda trial_id=trial_id: self.storage.set_trial_state_values(
                            trial_id, TrialState.FAIL
                        )
                    )

    def has_run(self, worker: Mapping[str, Any]) -> bool:
        """Whether a worker has ever claimed a trial."""
        return any(trial.notes.get('worker') == worker for trial in self._trials())

    def check_backbone(self, claim: Claim, fingerprint: str) -> None:
        """Notes the fingerprint of a training's backbone, and compares it with the others'.

        Trainings whose options change the backbone itself are compared among themselves.

        Raises:
            UserError: A training that is complete, or that began before, had other weights.
            LostTrialError: The trial was given to another worker.
        """
        claim.note(backbone=fingerprint)
        cells = [cell for cell in self.cells() if cell.attribute('backbone')]
        own = next(cell for cell in cells if cell.job.key == claim.job.key)
        for cell in cells:
            earlier = cell.state == RUNNING and cell.trial.number < own.trial.number
            comparable = self._backbone_options(cell.job) == self._backbone_options(claim.job)
            theirs = cell.attribute('backbone')
            if (earlier or cell.state == COMPLETE) and comparable and theirs != fingerprint:
                raise UserError(
                    f'the weights of its backbone (fingerprint {fingerprint[:12]}) are not those '
                    f'of {cell.job} ({terminal(theirs[:12])}), so that they cannot be compared: '
                    'give the backbone pretrained weights with init_cfg, the same on every machine'
                )

    def _backbone_options(self, job: Job) -> dict[str, Any]:
        options = self.sweep.config_options(job)
        return {key: value for key, value in options.items() if key.startswith('model.backbone')}

    def _trials(self) -> list[Trial]:
        trials = patiently(lambda: self._study.get_trials(deepcopy=False))
        try:
            return [
                self._checked(trial)
                for trial in trials
                if trial.state in _STATES and _JOB in trial.user_attrs
            ]
        except ValueError as error:
            raise UserError(f'{self.url}: study {terminal(self.name)}: {error}') from error

    def _checked(self, trial: FrozenTrial) -> Trial:
        """A trial whose shape is that of a training of this sweep."""
        if (known := self._ended.get(trial.number)) is not None:
            return known
        state = _STATES[trial.state]
        try:
            notes = schema.read_notes(trial.user_attrs)
            job = schema.read_job(notes[_JOB])
            points = self.sweep.points(job.method) if job.method in self.sweep.methods else []
            if job.options and job.options not in points:
                raise ValueError(f'job.options {options_text(job.options)!a} is no point of a grid')
            accuracy = trial.values[0] if state == COMPLETE and trial.values else None
            if state == COMPLETE and (accuracy is None or not math.isfinite(accuracy)):
                raise ValueError(f'its accuracy is {accuracy}')
        except ValueError as error:
            raise ValueError(f'trial {trial.number}: {error}') from error
        checked = Trial(
            trial.number,
            job,
            state,
            accuracy,
            notes,
            trial.datetime_start,
            trial.datetime_complete,
        )
        if state in (COMPLETE, FAILED):
            self._ended[trial.number] = checked
        return checked

    def _trial_id(self, trial: Trial) -> int:
        return patiently(
            lambda: self.storage.get_trial_id_from_study_id_trial_number(self._id, trial.number)
        )

    def _add(self, job: Job) -> None:
        values, choices = _parameters(job.options), self.sweep.grid.get(job.method, {})
        trial = optuna.create_trial(
            state=TrialState.WAITING,
            params={f'{job.method}.{name}': value for name, value in values.items()},
            distributions={
                f'{job.method}.{name}': CategoricalDistribution(
                    list(_parameters(dict(enumerate(choices[name]))).values())
                )
                for name in values
            },
            user_attrs={_JOB: dataclasses.asdict(job)},
        )
        patiently(lambda: self._study.add_trial(trial))


def begin_study(storage: str, name: str, sweep: Sweep) -> SweepStudy:
    """Creates a study, or joins it where it exists and has the same settings.

    Args:
        storage: The path of an SQLite file, which may not exist yet, or the URL of a database.
        name: Name of the study.
        sweep: The settings.

    Raises:
        UserError: The storage cannot be used, or has a study of that name with other settings, or
            these settings are none that a study can hold.
    """
    ours = _stored(sweep)
    try:
        schema.read_sweep(ours)  # what is stored can be read again
    except ValueError as error:
        raise UserError(f'settings of {name!r}: {error}') from error
    rdb, url = connect(storage, create=True)
    with explained(url):
        with contextlib.suppress(DuplicatedStudyError):
            optuna.create_study(storage=rdb, study_name=name, direction='maximize')
        study_id = rdb.get_study_id_from_name(name)
        if _SETTINGS not in rdb.get_study_user_attrs(study_id):
            if rdb.get_n_trials(study_id):
                raise UserError(f'{url}: study {name!r} is not one of a sweep: give another --name')
            rdb.set_study_user_attr(study_id, _IDENTITY, uuid.uuid4().hex)
            rdb.set_study_user_attr(study_id, _SETTINGS, ours)
        found = _settings(rdb, name, url)
        theirs = _stored(found)
        differing = [
            f'{setting} is {_told(theirs[setting])} there and {_told(ours[setting])} here'
            for setting in sorted(ours)
            if theirs[setting] != ours[setting]
        ]
        if differing:
            raise UserError(
                f'{url}: study {name!r} has other settings: {"; ".join(differing)}. Give another '
                f'--name for a new study; {command("sweep", "resume")!r} takes the settings from '
                'the study'
            )
        return SweepStudy(rdb, url, name, found)


def open_study(
    storage: str, name: str | None = None, read_only: bool = False, known: Sweep | None = None
) -> SweepStudy:
    """Opens a study that exists.

    Args:
        storage: The name of a sweep in ``work_dirs/sweeps``, the path of an SQLite file, or the URL
            of a database.
        name: Name of the study; may be left out where the storage holds one.
        read_only: Whether nothing will be changed.
        known: Settings that do not come from the database. Without them, options that make configs
            name what is not registered are refused, unless the study is read only.

    Raises:
        UserError: There is no such storage or study, or it is not one of a sweep.
    """
    rdb, url = connect(find(storage), create=False, read_only=read_only)
    with explained(url):
        names = optuna.get_all_study_names(storage=rdb)
        if name is None and len(names) == 1:
            name = names[0]
        if name not in names:
            listed = (
                f'; it holds: {", ".join(map(terminal, sorted(names)))}'
                if names
                else '; it holds none'
            )
            asked = 'give --name' if name is None else f'there is no study {name!r}'
            raise UserError(f'{url}: {asked}{listed}')
        found = _settings(rdb, name, url)
        if known is not None and _stored(found) != _stored(known):
            raise UserError(f'{url}: the settings of study {name!r} have changed meanwhile')
    study = SweepStudy(rdb, url, name, found)
    if known is None and not read_only:
        study.check_options()
    return study


def _settings(rdb: RDBStorage, name: str, url: str) -> Sweep:
    """The settings of a study, whose shape is that of a sweep's."""
    attributes = rdb.get_study_user_attrs(rdb.get_study_id_from_name(name))
    if _SETTINGS not in attributes:
        raise UserError(f'{url}: study {name!r} is not one of a sweep')
    try:
        if not isinstance(attributes.get(_IDENTITY), str):
            raise ValueError('it has no identity')
        return schema.read_sweep(attributes[_SETTINGS])
    except ValueError as error:
        raise UserError(f'{url}: study {name!r}: damaged settings: {error}') from error


def _parameters(options: Mapping[Any, Any]) -> dict[Any, Any]:
    """Options as Optuna stores them: what is no number, text or truth value as text."""
    scalars = (bool, int, float, str)
    return {k: v if isinstance(v, scalars) else json.dumps(v) for k, v in options.items()}


def _stored(sweep: Sweep) -> dict[str, Any]:
    """The settings as JSON gives them back."""
    return json.loads(json.dumps(sweep.to_dict()))


def _told(value: Any) -> str:
    if isinstance(value, dict) and all(isinstance(inner, dict) for inner in value.values()):
        value = {name: options_text(inner) for name, inner in value.items()}
    return shown(value, 160)
