"""Image files: which there are, what is wrong with one, and the loader of every pipeline."""

import re
import stat
from io import BytesIO
from pathlib import Path

import mmcv
import numpy as np
from mmcv.image.io import _pillow2array
from mmcv.transforms import LoadImageFromFile as _LoadImageFromFile
from mmengine import fileio
from PIL import Image

from gleam_mm.registry import TRANSFORMS

__all__ = [
    'SUFFIXES',
    'LoadImageFromFile',
    'UnreadableImageError',
    'eight_bits',
    'load_image',
    'open_image',
    'pixels_of',
    'read_image',
    'reason_of',
    'unreadable',
]

#: Endings of the pictures that are looked for in folders, in lower case.
SUFFIXES = (
    *('.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.bmp', '.gif', '.webp'),
    *('.tif', '.tiff', '.ppm', '.pgm', '.pbm', '.pnm'),
)


class UnreadableImageError(OSError):
    """An image cannot be read or decoded; the message names the file and says why."""


def open_image(file: str | Path | bytes) -> Image.Image:
    """Opens a picture without decoding it yet.

    Args:
        file: The file, or what is in it.

    Raises:
        UnreadableImageError: It does not exist, is no regular file, is empty, is in no known
            format, or has more than 178,956,970 pixels.
    """
    try:
        return _identify(read_image(file))
    except Exception as error:  # decoders raise nearly anything
        raise unreadable(file, error) from error


def load_image(file: str | Path | bytes) -> Image.Image:
    """Opens a picture and decodes it, with 8 bits a channel.

    Args:
        file: The file, or what is in it.

    Raises:
        UnreadableImageError: It cannot be read.
    """
    image = open_image(file)
    try:
        image.load()
        return eight_bits(image)
    except Exception as error:  # decoders raise nearly anything
        raise unreadable(file, error) from error


def eight_bits(image: Image.Image) -> Image.Image:
    """An image of 8 bits a channel, its brightness kept; Pillow would cut 16 bits off at 255.

    Raises:
        ValueError: The pixels are numbers without a known range.
    """
    if image.mode.startswith('I;16') or (image.mode == 'I' and image.format in ('PNG', 'PPM')):
        pixels = np.asarray(image)
        grey = Image.fromarray((pixels >> 8).astype(np.uint8))
        grey.info = image.info
        return grey
    if image.mode in ('I', 'F'):
        raise ValueError(
            f'its pixels have 32 bits (mode {image.mode}) and no known range; save it with 8 or 16'
        )
    return image


def pixels_of(image: Image.Image, color_type: str = 'color') -> np.ndarray:
    """The pixels of an image, as the loader of every pipeline gives them.

    It is turned as its EXIF data say, and grey with transparency is put on a canvas.

    Args:
        image: The image.
        color_type: As of MMCV's ``LoadImageFromFile``.

    Returns:
        By default uint8 BGR (H, W, 3).

    Raises:
        ValueError: The pixels are numbers without a known range.
    """
    return _pillow2array(eight_bits(image), color_type)


def unreadable(file: str | Path | bytes, error: Exception) -> UnreadableImageError:
    """The error that names the file, from what reading or decoding it raised."""
    if isinstance(error, UnreadableImageError):
        return error
    if isinstance(file, bytes):
        file = 'the picture'
    if isinstance(error, FileNotFoundError):
        return UnreadableImageError(f'{file} does not exist')
    return UnreadableImageError(f'{file}: cannot be read as an image: {reason_of(error)}')


def reason_of(error: Exception) -> str:
    """What a decoder says in one line, without addresses of objects and lines of OpenCV's code."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = re.sub(r' (file )?<_io\.\w+[^>]*>|^OpenCV.*? error: ', '', ' '.join(str(error).split()))
    return text or type(error).__name__


def read_image(file: str | Path | bytes) -> bytes:
    """The bytes of a picture, encoded, in a regular file; a pipe or device might never end.

    Raises:
        OSError: It does not exist or cannot be read.
        ValueError: It is no regular file.
    """
    if isinstance(file, bytes):
        return file
    if not stat.S_ISREG(Path(file).stat().st_mode):
        raise ValueError('it is no regular file')
    return Path(file).read_bytes()


def _identify(content: bytes) -> Image.Image:
    """Reads the header of a picture; Pillow refuses here what would take all memory."""
    if not content:
        raise ValueError('the file is empty')
    return Image.open(BytesIO(content))


@TRANSFORMS.register_module()
class LoadImageFromFile(_LoadImageFromFile):
    """Loads a picture, as MMCV's transform of this name does, and says what is wrong with one.

    It decodes with Pillow by default, which refuses a file that was cut off where OpenCV fills the
    rest with grey. Of 16 bits a channel the upper 8 are kept, in grey pictures as well. The first
    frame of an animated picture is taken.

    Args:
        imdecode_backend: ``pillow``, ``cv2``, ``turbojpeg`` or ``tifffile``.
        **kwargs: As of MMCV's ``LoadImageFromFile``.
    """

    def __init__(self, imdecode_backend: str = 'pillow', **kwargs: object) -> None:
        super().__init__(imdecode_backend=imdecode_backend, **kwargs)

    def transform(self, results: dict) -> dict | None:
        """Sets ``img``, uint8 BGR ``(H, W, 3)`` by default, ``img_shape`` and ``ori_shape``.

        It reads the file ``img_path``, or takes what is in ``img_bytes``, where a dataset has
        pictures in something else than files; ``img_path`` is then what messages call it.

        Raises:
            UnreadableImageError: The picture cannot be read.
        """
        file = results['img_path']
        try:
            content = results.pop('img_bytes', None)
            image = self._decode(self._content(file) if content is None else content)
        except Exception as error:  # decoders raise nearly anything
            if self.ignore_empty:
                return None
            raise unreadable(file, error) from error
        if self.to_float32:
            image = image.astype(np.float32)
        results['img'] = image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def _content(self, file: str) -> bytes:
        remote = self.backend_args is not None or '://' in file
        return fileio.get(file, backend_args=self.backend_args) if remote else read_image(file)

    def _decode(self, content: bytes) -> np.ndarray:
        if self.imdecode_backend == 'pillow':
            return pixels_of(_identify(content), self.color_type)
        if not content:
            raise ValueError('the file is empty')
        image = mmcv.imfrombytes(content, self.color_type, backend=self.imdecode_backend)
        if image is None:
            raise ValueError(f'{self.imdecode_backend} knows no such format')
        return image
