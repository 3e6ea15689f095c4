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
import random
import sqlite3
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

try:
    import optuna
    import sqlalchemy
except ImportError as error:
    raise ImportError(f"sweeps need Optuna ({error}): pip install 'gleam-mm[sweep]'") from error
from optuna.distributions import CategoricalDistribution
from optuna.exceptions import (
    DuplicatedStudyError,
    ExperimentalWarning,
    StorageInternalError,
    UpdateFinishedTrialError,
)
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from gleam_mm.errors import UserError
from gleam_mm.sweep.plan import Job, Sweep, options_text
from gleam_mm.sweep.results import Result

SWEEPS = Path('work_dirs') / 'sweeps'
DATABASE = 'study.db'
MOST_LOST = 5  # a training that so many workers died of has failed
MISSED_BEATS = 3

_SETTINGS = 'gleam_sweep'  # attribute of the study
_IDENTITY = 'gleam_id'  # another one: what tells the study from a deleted one of the same name
_JOB = 'job'  # attributes of a trial
_WORKER = 'worker'
_ERROR = 'error'

_OPEN_SECONDS = 5  # how long to wait for a locked file or a silent server, when opening
_BUSY_SECONDS = 60  # and later
_RETRY_SECONDS = 300  # how long a database may be away
_ATTEMPTS = 5
_DATABASE_ERRORS = (StorageInternalError, SQLAlchemyError)
_LIVE = (TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE)

T = TypeVar('T')


class NoStudyError(UserError):
    """There is no storage of that name."""


class LostTrialError(Exception):
    """The trial was given to another worker, since this one was silent for too long."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """A training of the sweep and what has become of it.

    Attributes:
        job: The training.
        state: ``complete``, ``running``, ``failed`` or ``waiting``.
        trial: Its trial in the storage, if it has one.
        error: Why it failed.
        ready: Whether it may be run: not so a final training whose options are not known yet.
    """

    job: Job
    state: str
    trial: FrozenTrial | None = None
    error: str | None = None
    ready: bool = True

    @property
    def accuracy(self) -> float | None:
        """Top-1 in %, of a complete training."""
        return self.trial.value if self.state == 'complete' else None

    def attribute(self, name: str) -> Any:
        """What the worker noted under a name, or None."""
        return self.trial.user_attrs.get(name) if self.trial else None


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
        storage.heartbeat_interval = sweep.heartbeat
        storage.grace_period = MISSED_BEATS * sweep.heartbeat

    def cells(self) -> list[Cell]:
        """Every training of the sweep, as it stands."""
        return survey(self.sweep, patiently(lambda: self._study.get_trials(deepcopy=False)))

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
            if cell.state == 'waiting' and cell.ready and cell.trial is None:
                self._add(cell.job)

    def retry_failed(self) -> int:
        """Makes waiting trials of all failed trainings; returns how many."""
        failed = [cell.job for cell in self.cells() if cell.state == 'failed']
        for job in failed:
            self._add(job)
        return len(failed)

    def claim(self, worker: Mapping[str, Any]) -> 'Claim | None':
        """Takes the waiting trial whose turn it is, unless other workers take all there are.

        Args:
            worker: What to tell of the worker: ``host`` and ``pid``.
        """
        for cell in sorted(self.cells(), key=lambda cell: self.sweep.turn(cell.job)):
            if cell.state == 'waiting' and cell.trial is not None:
                claim = Claim(self.storage, self._trial_id(cell.trial), cell.job)
                if claim.take(worker):
                    return claim
        return None

    def end_trials_of(self, workers: Iterable[Mapping[str, Any]]) -> None:
        """Ends the running trials of workers that are known to be dead, before they are missed."""
        dead = list(workers)
        for cell in self.cells():
            if cell.state == 'running' and cell.attribute(_WORKER) in dead:
                trial_id = self._trial_id(cell.trial)
                with contextlib.suppress(UpdateFinishedTrialError):
                    patiently(
                        lambda trial_id=trial_id: self.storage.set_trial_state_values(
                            trial_id, TrialState.FAIL
                        )
                    )

    def has_run(self, worker: Mapping[str, Any]) -> bool:
        """Whether a worker has ever claimed a trial."""
        trials = patiently(lambda: self._study.get_trials(deepcopy=False))
        return any(trial.user_attrs.get(_WORKER) == worker for trial in trials)

    def _trial_id(self, trial: FrozenTrial) -> int:
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


class Claim:
    """A trial that this process runs.

    Args:
        storage: Optuna's storage.
        trial_id: The trial's number in it.
        job: What to train.
    """

    def __init__(self, storage: RDBStorage, trial_id: int, job: Job) -> None:
        self._storage, self._trial_id, self.job = storage, trial_id, job

    def take(self, worker: Mapping[str, Any]) -> bool:
        """Makes the trial this process's own; False where another one was faster."""
        # A sign of life first: a worker that is killed in between would never be missed.
        patiently(lambda: self._storage.record_heartbeat(self._trial_id))
        try:
            # After a lost connection the answer may be lost too. Then the trial goes on as that of
            # a dead worker, which is safe.
            if not self._storage.set_trial_state_values(self._trial_id, TrialState.RUNNING):
                return False
        except (UpdateFinishedTrialError, *_DATABASE_ERRORS):
            return False
        self.note(**{_WORKER: dict(worker)})
        return True

    def beat(self) -> None:
        """Gives a sign of life.

        Raises:
            LostTrialError: The trial was given to another worker.
        """
        if self._storage.get_trial(self._trial_id).state != TrialState.RUNNING:
            raise LostTrialError(f'{self.job} was given to another worker')
        self._storage.record_heartbeat(self._trial_id)

    def note(self, **attributes: Any) -> None:
        """Notes what can be stored as JSON beside the trial.

        Raises:
            LostTrialError: The trial was given to another worker.
        """
        with self._losing():
            for name, value in attributes.items():
                patiently(
                    lambda name=name, value=value: self._storage.set_trial_user_attr(
                        self._trial_id, name, value
                    )
                )

    def complete(self, accuracy: float, **attributes: Any) -> None:
        """Ends the trial with its accuracy in %.

        Raises:
            LostTrialError: The trial was given to another worker.
        """
        self.note(**attributes)
        self._end(TrialState.COMPLETE, [accuracy])

    def fail(self, error: str, **attributes: Any) -> None:
        """Ends the trial with what went wrong.

        Raises:
            LostTrialError: The trial was given to another worker.
        """
        self.note(**{**attributes, _ERROR: error})
        self._end(TrialState.FAIL)

    def release(self) -> None:
        """Gives the trial back: it waits again, for any worker."""
        with contextlib.suppress(LostTrialError):
            self._end(TrialState.WAITING)

    def _end(self, state: TrialState, values: list[float] | None = None) -> None:
        with self._losing(unless=state):
            patiently(lambda: self._storage.set_trial_state_values(self._trial_id, state, values))

    @contextlib.contextmanager
    def _losing(self, unless: TrialState | None = None) -> Iterator[None]:
        """Tells a trial that was ended by others from one whose end was only not acknowledged."""
        try:
            yield
        except UpdateFinishedTrialError as error:
            if patiently(lambda: self._storage.get_trial(self._trial_id)).state != unless:
                raise LostTrialError(f'{self.job} was given to another worker') from error


def survey(sweep: Sweep, trials: Iterable[FrozenTrial]) -> list[Cell]:
    """What has become of every training of a sweep.

    Args:
        sweep: The settings.
        trials: All trials of the study.

    Returns:
        The trainings, by method and dataset, the select phase before the final one.
    """
    by_key: dict[str, list[FrozenTrial]] = {}
    for trial in sorted(trials, key=lambda trial: trial.number):
        if _JOB in trial.user_attrs:
            by_key.setdefault(_job(trial).key, []).append(trial)
    cells = []
    for method, dataset in sweep.pairs():
        selection = [
            _cell(job, by_key.get(job.key, [])) for job in sweep.select_jobs(method, dataset)
        ]
        options = best_options(selection)
        cells += selection
        cells += [
            _cell(job, by_key.get(job.key, []), ready=options is not None)
            for job in sweep.final_jobs(method, dataset, options)
        ]
    return cells


def best_options(selection: Iterable[Cell]) -> dict[str, Any] | None:
    """The best point of a grid: of equally accurate ones the first.

    Args:
        selection: All trainings of the select phase, of one method on one dataset.

    Returns:
        Options, ``{}`` without a select phase, and None where not all trainings are complete.
    """
    best, accuracy = {}, -1.0
    for cell in selection:
        if cell.accuracy is None:
            return None
        if cell.accuracy > accuracy:
            best, accuracy = cell.job.options, cell.accuracy
    return best


def _cell(job: Job, trials: list[FrozenTrial], ready: bool = True) -> Cell:
    live = [trial for trial in trials if trial.state in _LIVE]
    if live:  # the rest are spares
        return Cell(_job(live[0]), live[0].state.name.lower(), live[0], ready=ready)
    ended = [trial for trial in trials if trial.state == TrialState.FAIL]
    if ended and (error := ended[-1].user_attrs.get(_ERROR)):
        return Cell(job, 'failed', ended[-1], error, ready)
    if len(ended) >= MOST_LOST:
        error = f'{len(ended)} workers died while they ran it; is there enough memory?'
        return Cell(job, 'failed', ended[-1], error, ready)
    return Cell(job, 'waiting', ready=ready)


def _job(trial: FrozenTrial) -> Job:
    return Job(**trial.user_attrs[_JOB])


def _parameters(options: Mapping[Any, Any]) -> dict[Any, Any]:
    """Options as Optuna stores them: what is no number, text or truth value as text."""
    scalars = (bool, int, float, str)
    return {k: v if isinstance(v, scalars) else json.dumps(v) for k, v in options.items()}


def patiently(action: Callable[[], T]) -> T:
    """Does something with the database, again and again while that cannot be reached."""
    start, pause = time.monotonic(), 0.2
    while True:
        try:
            return action()
        except _DATABASE_ERRORS:
            if time.monotonic() - start > _RETRY_SECONDS:
                raise
        time.sleep(pause * (0.5 + random.random()))
        pause = min(2 * pause, 20)


def begin_study(storage: str, name: str, sweep: Sweep) -> SweepStudy:
    """Creates a study, or joins it where it exists and has the same settings.

    Args:
        storage: The path of an SQLite file, which may not exist yet, or the URL of a database.
        name: Name of the study.
        sweep: The settings.

    Raises:
        UserError: The storage cannot be used, or has a study of that name with other settings.
    """
    rdb, url = _connect(storage, create=True)
    ours = _stored(sweep)
    with _explained(url):
        with contextlib.suppress(DuplicatedStudyError):
            optuna.create_study(storage=rdb, study_name=name, direction='maximize')
        study_id = rdb.get_study_id_from_name(name)
        if _SETTINGS not in rdb.get_study_user_attrs(study_id):
            if rdb.get_n_trials(study_id):
                raise UserError(f'{url}: study {name!r} is not one of a sweep: give another --name')
            rdb.set_study_user_attr(study_id, _IDENTITY, uuid.uuid4().hex)
            rdb.set_study_user_attr(study_id, _SETTINGS, ours)
        found = Sweep.from_dict(rdb.get_study_user_attrs(study_id)[_SETTINGS])
        theirs = _stored(found)
        differing = [
            f'{setting} is {_short(theirs[setting])} there and {_short(ours[setting])} here'
            for setting in sorted(ours)
            if theirs[setting] != ours[setting]
        ]
        if differing:
            raise UserError(
                f'{url}: study {name!r} has other settings: {"; ".join(differing)}. Give another '
                "--name for a new study; 'sweep.py resume' takes the settings from the study"
            )
        return SweepStudy(rdb, url, name, found)


def open_study(storage: str, name: str | None = None, read_only: bool = False) -> SweepStudy:
    """Opens a study that exists.

    Args:
        storage: The name of a sweep in ``work_dirs/sweeps``, the path of an SQLite file, or the URL
            of a database.
        name: Name of the study; may be left out where the storage holds one.
        read_only: Whether nothing will be changed.

    Raises:
        UserError: There is no such storage or study, or it is not one of a sweep.
    """
    rdb, url = _connect(find(storage), create=False, read_only=read_only)
    with _explained(url):
        names = optuna.get_all_study_names(storage=rdb)
        if name is None and len(names) == 1:
            name = names[0]
        if name not in names:
            listed = f'; it holds: {", ".join(sorted(names))}' if names else '; it holds none'
            asked = 'give --name' if name is None else f'there is no study {name!r}'
            raise UserError(f'{url}: {asked}{listed}')
        settings = rdb.get_study_user_attrs(rdb.get_study_id_from_name(name)).get(_SETTINGS)
        if settings is None:
            raise UserError(f'{url}: study {name!r} is not one of a sweep')
        return SweepStudy(rdb, url, name, Sweep.from_dict(settings))


def is_url(storage: str) -> bool:
    """Whether a storage is given by its URL, and not by a path or name."""
    return '://' in storage


def find(storage: str) -> str:
    """The file of a sweep that is given by its name or folder."""
    if is_url(storage):
        return storage
    candidates = [Path(storage), Path(storage) / DATABASE, SWEEPS / storage / DATABASE]
    for path in candidates:
        if path.is_file():
            return str(path)
    raise NoStudyError(
        f'{storage}: no such study: neither a file nor {candidates[-1]} exists; give the name of a '
        f'sweep in {SWEEPS}, the path of an SQLite file, or the URL of a database'
    )


def _connect(storage: str, create: bool, read_only: bool = False) -> tuple[RDBStorage, str]:
    """Opens a storage; returns it with what to call it in messages."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url, shown = _url(storage, create)
    sqlite = url.get_backend_name() == 'sqlite'
    arguments = {'timeout': _BUSY_SECONDS} if sqlite else {}
    if url.get_backend_name() == 'postgresql':
        arguments = {'connect_timeout': _OPEN_SECONDS}
    options = dict(poolclass=sqlalchemy.NullPool, connect_args=arguments)  # many share a server
    if not sqlite:
        with _explained(shown):
            sqlalchemy.create_engine(url, **options).connect().close()
    for attempt in range(_ATTEMPTS):
        with _explained(shown), contextlib.ExitStack() as stack:
            if attempt < _ATTEMPTS - 1:  # two processes may create the tables at the same time
                stack.enter_context(contextlib.suppress(*_DATABASE_ERRORS))
            rdb = RDBStorage(
                # It is a template for str.format().
                url.render_as_string(hide_password=False).replace('{', '{{').replace('}', '}}'),
                engine_kwargs=options,
                skip_table_creation=not create,
            )
            if sqlite and not read_only:
                _lock_at_begin(rdb.engine)
            return rdb, shown
        time.sleep(random.random())
    raise AssertionError('the last attempt returns or raises')


def _lock_at_begin(engine: sqlalchemy.Engine) -> None:
    """Makes transactions on an SQLite file follow each other.

    Optuna claims a trial by SELECT ... FOR UPDATE. SQLite ignores FOR UPDATE, and two processes
    that both read before either writes would both claim the same trial. SQLAlchemy's documentation
    has this way to begin transactions.
    """

    @sqlalchemy.event.listens_for(engine, 'connect')
    def _leave_transactions_to_us(connection: Any, record: Any) -> None:
        connection.isolation_level = None

    @sqlalchemy.event.listens_for(engine, 'begin')
    def _begin(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql('BEGIN IMMEDIATE')


def _url(storage: str, create: bool) -> tuple[sqlalchemy.URL, str]:
    if not is_url(storage):
        return _sqlite_url(Path(storage), create), storage
    try:
        url = sqlalchemy.make_url(storage)
    except SQLAlchemyError as error:
        raise UserError(
            f'--storage {storage}: not the URL of a database, such as '
            'postgresql://user@host/database'
        ) from error
    if url.get_backend_name() == 'sqlite':
        if not url.database or url.database == ':memory:':
            raise UserError(f'--storage {storage}: workers cannot share it; name a file')
        return _sqlite_url(Path(url.database), create), url.database
    if url.drivername in ('postgresql', 'postgres'):
        url = url.set(drivername='postgresql+psycopg')
    return url, url.render_as_string(hide_password=True)


def _sqlite_url(path: Path, create: bool) -> sqlalchemy.URL:
    _check_sqlite(path)
    if create:
        path.parent.mkdir(parents=True, exist_ok=True)
    mode = 'rwc' if create else 'rw'
    file = f'file:{quote(str(path.absolute()))}'
    return sqlalchemy.URL.create('sqlite', database=file, query={'mode': mode, 'uri': 'true'})


def _check_sqlite(path: Path) -> None:
    """Refuses what is no database of Optuna's, and what another program keeps locked."""
    if not path.exists():
        return
    if not path.is_file():
        raise UserError(f'{path}: not a file; name an SQLite file')
    hint = 'name another file with --storage'
    try:
        with contextlib.closing(
            sqlite3.connect(f'file:{quote(str(path.absolute()))}?mode=rw', _OPEN_SECONDS, uri=True)
        ) as connection:
            rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            tables = {name for (name,) in rows}
    except sqlite3.OperationalError as error:
        if 'locked' in str(error):
            raise UserError(
                f'{path}: another program keeps this database locked; end it and try again'
            ) from error
        raise UserError(f'{path}: cannot read this database: {error}') from error
    except sqlite3.DatabaseError as error:
        raise UserError(f'{path}: not an SQLite database ({error}); {hint}') from error
    if tables and 'studies' not in tables:
        raise UserError(
            f'{path}: a database of something else (its tables: '
            f'{", ".join(sorted(tables)[:5])}); {hint}'
        )


@contextlib.contextmanager
def _explained(shown: str) -> Iterator[None]:
    """Turns errors of opening a database into :class:`~gleam_mm.errors.UserError`."""
    try:
        yield
    except ImportError as error:
        raise UserError(
            f'{shown}: its driver is not installed ({error.__cause__ or error}): for PostgreSQL '
            "pip install 'gleam-mm[sweep]'"
        ) from error
    except sqlalchemy.exc.NoSuchModuleError as error:
        raise UserError(f'{shown}: unknown kind of database: {error}') from error
    except _DATABASE_ERRORS as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        lines = str(getattr(cause, 'orig', None) or cause).strip().splitlines()
        raise UserError(f'{shown}: cannot use this database: {lines[0]}') from error
    except RuntimeError as error:  # another version of Optuna made the tables
        raise UserError(f'{shown}: {error}') from error


def _stored(sweep: Sweep) -> dict[str, Any]:
    """The settings as JSON gives them back."""
    return json.loads(json.dumps(sweep.to_dict()))


def _short(value: Any) -> str:
    if isinstance(value, dict) and all(isinstance(inner, dict) for inner in value.values()):
        value = {name: options_text(inner) for name, inner in value.items()}
    text = json.dumps(value)
    return text if len(text) <= 160 else f'{text[:157]}...'
