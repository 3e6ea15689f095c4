"""Pictures that come with requests: read within limits, whichever way they are sent."""

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncGenerator

from fastapi import HTTPException, Request
from starlette.formparsers import MultiPartException, MultiPartParser

from gleam_mm.datasets.images import open_image

FORMATS = ('BMP', 'GIF', 'JPEG', 'MPO', 'PNG', 'PPM', 'TIFF', 'WEBP')
"""Formats that are decoded. Pillow knows more, of which some run other programs.

MPO is what Pillow calls a JPEG file with further pictures behind the first, as phones write them.
"""

_BODY_SECONDS = 30
_AROUND = 4096  # bytes that JSON and forms put around a picture


async def content(request: Request, most: int) -> bytes:
    """The picture in a request: the body itself, the file of a form, or base64 in JSON.

    Args:
        request: The request.
        most: The largest picture, in bytes.

    Raises:
        HTTPException: It is too large (413), there is none (400), or it comes in another way (415).
    """
    kind = request.headers.get('content-type', '').partition(';')[0].strip().lower()
    if kind == 'multipart/form-data':
        found = await _of_form(request, await body(request, most + _AROUND))
    elif kind == 'application/json':
        found = _of_json(await body(request, 4 * -(-most // 3) + _AROUND))
    elif kind.startswith('image/') or kind == 'application/octet-stream':
        found = await body(request, most)
    else:
        raise HTTPException(
            415,
            f'content-type {kind!r}: send a picture as it is (image/...), as the file of a form '
            '(multipart/form-data), or as {"image": "<base64>"} (application/json)',
        )
    if len(found) > most:
        raise _too_large(most)
    if not found:
        raise HTTPException(400, 'the picture is empty')
    return found


async def body(request: Request, most: int) -> bytes:
    """The body of a request, which is not read any further than is allowed.

    Raises:
        HTTPException: It is too large (413), or does not come in time (408).
    """
    length = request.headers.get('content-length', '')
    if length.isascii() and length.isdigit() and int(length) > most:
        raise _too_large(most)
    found = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in request.stream():
                found += chunk
                if len(found) > most:
                    raise _too_large(most)
    except TimeoutError:
        raise HTTPException(408, f'the body did not come within {_BODY_SECONDS} seconds') from None
    return bytes(found)


def check_pixels(picture: bytes, most: int) -> None:
    """Looks at the header of a picture, before anything is decoded.

    Raises:
        HTTPException: Its format is none that is taken (415), or it has too many pixels (413).
        UnreadableImageError: It is no picture.
    """
    with open_image(picture) as image:
        width, height, kind = image.width, image.height, image.format
    if kind not in FORMATS:
        raise HTTPException(415, f'a picture in {kind}: send one of {", ".join(FORMATS)}')
    if width * height > most:
        raise HTTPException(
            413, f'a picture of {width} x {height} pixels: this server takes {most:,} at most'
        )


async def _of_form(request: Request, data: bytes) -> bytes:
    async def once() -> AsyncGenerator[bytes, None]:
        yield data

    try:
        form = await MultiPartParser(request.headers, once(), max_files=1, max_fields=1).parse()
    except (MultiPartException, KeyError) as error:
        raise HTTPException(400, f'the form cannot be read: {error}') from error
    file = form.get('file')
    if file is None or isinstance(file, str):
        raise HTTPException(400, "the form has no file named 'file'")
    return await file.read()


def _of_json(data: bytes) -> bytes:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f'the body is no JSON: {error}') from error
    text = found.get('image') if isinstance(found, dict) else None
    if not isinstance(text, str):
        raise HTTPException(400, 'the body has no "image" with a picture in base64')
    if text.startswith('data:'):  # as browsers give it
        text = text.partition(',')[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise HTTPException(400, f'"image" is no base64: {error}') from error


def _too_large(most: int) -> HTTPException:
    return HTTPException(413, f'more than the {most:,} bytes that this server takes')
