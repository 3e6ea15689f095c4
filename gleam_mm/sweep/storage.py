"""How the storage of a study is reached: an SQLite file, or a database server.

What others do to it meanwhile (lock it, restart it, write to it at the same time) is dealt with
here.
"""

import contextlib
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

try:
    import optuna
    import sqlalchemy
except ImportError as error:
    raise ImportError(f"sweeps need Optuna ({error}): pip install 'gleam-mm[sweep]'") from error
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.exc import SQLAlchemyError

from gleam_mm.errors import UserError
from gleam_mm.sweep.places import is_url

DATABASE_ERRORS = (StorageInternalError, SQLAlchemyError)

_OPEN_SECONDS = 5  # how long to wait for a locked file or a silent server, when opening
_BUSY_SECONDS = 60  # and later
_RETRY_SECONDS = 300  # how long a database may be away
_ATTEMPTS = 5

T = TypeVar('T')


def connect(storage: str, create: bool, read_only: bool = False) -> tuple[RDBStorage, str]:
    """Opens a storage.

    Args:
        storage: The path of an SQLite file, or the URL of a database.
        create: Whether it may not exist yet.
        read_only: Whether nothing will be changed.

    Returns:
        Optuna's storage, and what to call it in messages.

    Raises:
        UserError: It cannot be used.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url, shown = _url(storage, create)
    sqlite = url.get_backend_name() == 'sqlite'
    arguments = {'timeout': _BUSY_SECONDS} if sqlite else {}
    if url.get_backend_name() == 'postgresql':
        arguments = {'connect_timeout': _OPEN_SECONDS}
    options = dict(poolclass=sqlalchemy.NullPool, connect_args=arguments)  # many share a server
    if not sqlite:
        with explained(shown):
            sqlalchemy.create_engine(url, **options).connect().close()
    for attempt in range(_ATTEMPTS):
        with explained(shown), contextlib.ExitStack() as stack:
            if attempt < _ATTEMPTS - 1:  # two processes may create the tables at the same time
                stack.enter_context(contextlib.suppress(*DATABASE_ERRORS))
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


def patiently(action: Callable[[], T]) -> T:
    """Does something with the database, again and again while that cannot be reached."""
    start, pause = time.monotonic(), 0.2
    while True:
        try:
            return action()
        except DATABASE_ERRORS:
            if time.monotonic() - start > _RETRY_SECONDS:
                raise
        time.sleep(pause * (0.5 + random.random()))
        pause = min(2 * pause, 20)


@contextlib.contextmanager
def explained(shown: str) -> Iterator[None]:
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
    except DATABASE_ERRORS as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        lines = str(getattr(cause, 'orig', None) or cause).strip().splitlines()
        raise UserError(f'{shown}: cannot use this database: {lines[0]}') from error
    except RuntimeError as error:  # another version of Optuna made the tables
        raise UserError(f'{shown}: {error}') from error


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
