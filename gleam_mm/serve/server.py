"""A server as a process."""

import os

import uvicorn
from fastapi import FastAPI

from gleam_mm.serve.app import create_app
from gleam_mm.serve.settings import Settings

TOKEN_VARIABLE = 'GLEAM_TOKEN'


def build(settings: Settings) -> FastAPI:
    """The application, with the bank and all its tasks, and the token of the environment.

    Raises:
        FileNotFoundError: An adapter, or the backbone's weights, are not there.
        CheckpointError: An adapter does not belong to the backbone, or is damaged.
        ValueError: Two tasks have the same name, or one has no fitting one.
    """
    return create_app(settings.build_bank(), settings, os.environ.get(TOKEN_VARIABLE) or None)


def run(app: FastAPI, settings: Settings) -> None:
    """Serves until a signal ends the process; what was asked by then is answered."""
    uvicorn.run(app, host=settings.host, port=settings.port, server_header=False)
