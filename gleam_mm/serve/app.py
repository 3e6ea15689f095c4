"""The server: routes over a bank, its batcher and its metrics."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException as StarletteHTTPException

from gleam_mm.bank import AdapterBank, Prepared, UnknownTaskError, check_name
from gleam_mm.checkpoint import CheckpointError
from gleam_mm.datasets import UnreadableImageError
from gleam_mm.inference.resizing import TooLargeImageError
from gleam_mm.serve import pictures
from gleam_mm.serve.batcher import Batcher, BusyError
from gleam_mm.serve.metrics import Metrics
from gleam_mm.serve.settings import Settings
from gleam_mm.version import __version__

_PAGE = Path(__file__).parent / 'page'
_PARTS = {'page.html': 'text/html', 'page.js': 'text/javascript', 'page.css': 'text/css'}
_HEADERS = {
    'Content-Security-Policy': "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    'X-Content-Type-Options': 'nosniff',
    'Referrer-Policy': 'no-referrer',
}


def create_app(bank: AdapterBank, settings: Settings, token: str | None = None) -> FastAPI:
    """The application that serves a bank.

    Args:
        bank: The bank.
        settings: What is allowed.
        token: What adding and removing tasks asks for; without it neither is possible.
    """
    metrics: Metrics
    batcher = Batcher(
        bank,
        settings.max_batch,
        settings.max_wait_ms / 1000,
        settings.max_waiting,
        lambda number, seconds: metrics.passed(number, seconds),
    )
    metrics = Metrics(bank, lambda: batcher.waiting)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(batcher.close)

    app = FastAPI(
        title='GLEAM-MM', version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan
    )
    _tell_errors(app)
    _measure(app, metrics)
    _add_predictions(app, bank, settings, batcher, metrics)
    _add_tasks(app, bank, settings, token)
    _add_page(app)

    @app.get('/health')
    async def health() -> Response:
        """Whether the process works at all."""
        return _state(batcher.alive, 'nothing is computed any more: start the server again')

    @app.get('/ready')
    async def ready() -> Response:
        """Whether requests should be sent here."""
        return _state(batcher.alive and bool(bank.tasks), 'there are no tasks')

    @app.get('/metrics')
    async def prometheus() -> Response:
        """The numbers for Prometheus."""
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return app


def _add_predictions(
    app: FastAPI, bank: AdapterBank, settings: Settings, batcher: Batcher, metrics: Metrics
) -> None:
    def prepare(picture: bytes, task: str) -> Prepared:
        pictures.check_pixels(picture, settings.max_pixels)
        return bank.prepare(picture, task)

    @app.post('/predict/{task}')
    async def predict(
        task: str, request: Request, top_k: Annotated[int, Query(ge=1, le=1000)] = 5
    ) -> dict[str, Any]:
        """The classes of a picture, or numbers: the body, the file of a form, or base64 in JSON."""
        bank.describe(task)  # before anything is read
        picture = await pictures.content(request, settings.max_bytes)
        prepared = await run_in_threadpool(prepare, picture, task)
        try:
            scores = await asyncio.wrap_future(batcher.submit(prepared))
        except (CheckpointError, FileNotFoundError) as error:  # its file went, or changed
            raise HTTPException(503, f'task {task!r} has changed: ask again') from error
        if not scores.isfinite().all():  # JSON has no word for them
            raise HTTPException(
                500,
                f'task {task!r} gives numbers that are infinite or NaN for this picture, such as '
                'of a training that diverged: remove the task, or add another adapter for it',
            )
        metrics.prediction(task)
        predictions = [found._asdict() for found in prepared.told(scores, top_k)]
        return {'task': task, 'numbers': prepared.numbers, 'predictions': predictions}


def _add_tasks(app: FastAPI, bank: AdapterBank, settings: Settings, token: str | None) -> None:
    changing = asyncio.Lock()

    def require_token(request: Request) -> None:
        if token is None:
            raise HTTPException(403, 'this server was started without a token: nothing is changed')
        scheme, _, given = request.headers.get('authorization', '').partition(' ')
        known = secrets.compare_digest(given.strip().encode(), token.encode())
        if scheme.lower() != 'bearer' or not known:
            raise HTTPException(
                401,
                'give the token of this server: Authorization: Bearer TOKEN',
                {'WWW-Authenticate': 'Bearer'},
            )

    def file_of(task: str) -> Path:
        try:
            check_name(task)
        except ValueError as error:
            raise HTTPException(422, str(error)) from error
        if settings.folder is None:
            raise HTTPException(403, 'this server has no folder: no adapter is taken')
        return settings.folder / f'{task}.safetensors'

    @app.get('/tasks')
    async def tasks() -> dict[str, Any]:
        """All tasks, each with the number of its classes."""
        described = {name: bank.describe(name) for name in bank.tasks}
        return {
            'tasks': {
                name: {'classes': None if d['classes'] is None else len(d['classes'])}
                for name, d in described.items()
            }
        }

    @app.get('/tasks/{task}')
    async def one_task(task: str) -> dict[str, Any]:
        """What is known of a task."""
        return bank.describe(task)

    @app.put('/tasks/{task}', status_code=201)
    async def add(task: str, request: Request) -> dict[str, Any]:
        """Adds a task; the body is its adapter file."""
        require_token(request)
        file = file_of(task)
        adapter = await pictures.body(request, settings.max_adapter_bytes)
        async with changing:
            if task in bank.tasks or file.exists():
                raise HTTPException(409, f'task {task!r} is there already: remove it first')
            try:
                await run_in_threadpool(bank.add, task, file, adapter)
            except BaseException as error:
                file.unlink(missing_ok=True)
                if not isinstance(error, CheckpointError):
                    raise
                reason = str(error).replace(f'{file}: ', '')
                raise HTTPException(422, f'task {task!r}: {reason}') from error
        return bank.describe(task)

    @app.delete('/tasks/{task}')
    async def remove(task: str, request: Request) -> dict[str, Any]:
        """Removes a task of the folder, and its file."""
        require_token(request)
        if task in settings.adapters:  # it would be there again at the next start
            raise HTTPException(
                409,
                f'task {task!r} is one of adapters in the settings of this server: remove it there',
            )
        async with changing:
            bank.remove(task)
            if settings.folder is not None:
                file_of(task).unlink(missing_ok=True)
        return {'removed': task}


def _add_page(app: FastAPI) -> None:
    found = {name: (_PAGE / name).read_bytes() for name in _PARTS}

    def part(name: str) -> Callable[[], Awaitable[Response]]:
        async def send() -> Response:
            return Response(found[name], media_type=_PARTS[name], headers=_HEADERS)

        return send

    for name in _PARTS:
        path = '/' if name == 'page.html' else f'/{name}'
        app.add_api_route(path, part(name), include_in_schema=False)


def _measure(app: FastAPI, metrics: Metrics) -> None:
    @app.middleware('http')
    async def measure(
        request: Request, answer: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        start = time.monotonic()
        status = 500
        try:
            response = await answer(request)
            status = response.status_code
            return response
        finally:
            route = getattr(request.scope.get('route'), 'path', 'none')
            metrics.request(route, status, time.monotonic() - start)


def _tell_errors(app: FastAPI) -> None:
    """Every mistake is told in one sentence, as ``{"error": ...}``."""

    @app.exception_handler(StarletteHTTPException)
    async def told(request: Request, error: StarletteHTTPException) -> JSONResponse:
        return _error(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(RequestValidationError)
    async def wrong(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return _error(422, f'{first["loc"][-1]}: {first["msg"]}')

    @app.exception_handler(UnknownTaskError)
    async def unknown(request: Request, error: UnknownTaskError) -> JSONResponse:
        return _error(404, str(error))

    @app.exception_handler(UnreadableImageError)
    async def unreadable(request: Request, error: UnreadableImageError) -> JSONResponse:
        return _error(422, str(error))

    @app.exception_handler(TooLargeImageError)
    async def too_large(request: Request, error: TooLargeImageError) -> JSONResponse:
        return _error(413, str(error))

    @app.exception_handler(BusyError)
    async def busy(request: Request, error: BusyError) -> JSONResponse:
        return _error(503, str(error), {'Retry-After': '1'})

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        return _error(500, 'the server failed; its log has the reason')


def _error(status: int, sentence: str, headers: Any = None) -> JSONResponse:
    return JSONResponse({'error': sentence}, status, headers)


def _state(good: bool, reason: str) -> Response:
    return JSONResponse({'status': 'ok'}) if good else _error(503, reason)
