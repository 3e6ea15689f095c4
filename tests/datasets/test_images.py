"""One loader: what it makes of a picture, and what it says of one that it cannot read."""

import errno
import os
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from vtab_tree import make_vtab_tree

from gleam_mm.datasets import VTAB1K, CustomDataset, LoadImageFromFile, UnreadableImageError
from gleam_mm.datasets.images import SUFFIXES, load_image

BACKENDS = ['pillow', 'cv2']


def load(file, **kwargs):
    return LoadImageFromFile(**kwargs).transform({'img_path': str(file)})


def picture(mode, size=(12, 9)):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    return Image.fromarray(pixels, 'RGBA').convert(mode)


@pytest.mark.parametrize('name', ['grey.png', 'grey.tif', 'grey.pgm', 'colour.png', 'colour.tif'])
def test_of_16_bits_the_upper_8_are_kept(name, tmp_path):
    pixels = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)
    written = pixels if name.startswith('grey') else np.stack([pixels] * 3, axis=-1)
    cv2.imwrite(str(tmp_path / name), written)
    found = load(tmp_path / name)['img']
    assert found.shape == (32, 32, 3) and found.dtype == np.uint8
    assert np.abs(found.astype(int) - (pixels[..., None] / 257)).max() <= 1


def test_grey_of_16_and_of_8_bits_are_alike_in_every_dataset(tmp_path):
    """White and black halves: cut off at 255, all of a picture of 16 bits would be white."""
    grey = np.repeat(np.array([40, 200], np.uint8), 50).reshape(10, 10)
    for folder, pixels in (('cat', grey), ('dog', grey.astype(np.uint16) * 257)):
        (tmp_path / 'folder' / folder).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / 'folder' / folder / '1.png'), pixels)
    pipeline = [dict(type='LoadImageFromFile')]
    eight, sixteen = CustomDataset(str(tmp_path / 'folder'), pipeline=pipeline)
    assert (eight['img'] == grey[..., None]).all() and (sixteen['img'] == grey[..., None]).all()
    make_vtab_tree(tmp_path / 'vtab', ['dtd'])
    cv2.imwrite(str(tmp_path / 'vtab/dtd/images/test/000000.png'), grey.astype(np.uint16) * 257)
    (tmp_path / 'vtab/dtd/test.txt').write_text('images/test/000000.png 3\n')
    listed = VTAB1K('dtd', 'test', str(tmp_path / 'vtab'), pipeline=pipeline)
    assert (listed[0]['img'] == grey[..., None]).all()


@pytest.mark.parametrize('suffix', SUFFIXES)
def test_pictures_of_every_ending_are_decoded(suffix, tmp_path):
    original = Image.new('L', (12, 9), 200) if suffix != '.pbm' else Image.new('1', (12, 9), 1)
    original.save(tmp_path / f'a{suffix}')
    found = load(tmp_path / f'a{suffix}')
    assert found['img'].shape == (9, 12, 3) and found['ori_shape'] == (9, 12)
    assert np.abs(found['img'].astype(int) - (200 if suffix != '.pbm' else 255)).max() <= 2


@pytest.mark.parametrize('mode', ['RGB', 'RGBA', 'L', 'LA', 'P', 'CMYK', '1'])
def test_pictures_of_every_kind_are_decoded(mode, tmp_path):
    file = tmp_path / ('a.tif' if mode == 'CMYK' else 'a.png')
    picture(mode).save(file)
    assert load(file)['img'].shape == (9, 12, 3)


def test_colours_come_as_opencv_reads_them_and_turned_as_exif_says(tmp_path):
    image = picture('RGB')
    exif = image.getexif()
    exif[0x0112] = 6  # turn clockwise
    image.save(tmp_path / 'a.png', exif=exif)
    found = load(tmp_path / 'a.png')['img']
    assert found.shape == (12, 9, 3)
    assert (found == np.rot90(np.asarray(image)[..., ::-1], -1)).all()
    assert (found == cv2.imread(str(tmp_path / 'a.png'))).all()


def huge(file):
    """A PNG whose header claims 60,000 x 60,000 pixels."""
    content = b'\x89PNG\r\n\x1a\n'
    size = (60000).to_bytes(4, 'big')
    for kind, data in ((b'IHDR', size + size + bytes([8, 2, 0, 0, 0])), (b'IDAT', b'')):
        check = zlib.crc32(kind + data).to_bytes(4, 'big')
        content += len(data).to_bytes(4, 'big') + kind + data + check
    file.write_bytes(content)


def cut(file):
    picture('RGB', (64, 64)).save(file.with_suffix('.jpg'))
    whole = file.with_suffix('.jpg').read_bytes()
    file.write_bytes(whole[: len(whole) // 2])


CASES = {
    'empty': (lambda file: file.write_bytes(b''), 'the file is empty'),
    'text': (lambda file: file.write_bytes(b'this is no image'), 'cannot'),
    'huge': (huge, 'PIXELS'),
    'pipe': (os.mkfifo, 'it is no regular file'),
    'folder': (Path.mkdir, 'it is no regular file'),
}


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('case', CASES)
def test_what_cannot_be_read_is_named(case, backend, tmp_path):
    make, reason = CASES[case]
    file = tmp_path / f'{case}.png'
    make(file)
    with pytest.raises(UnreadableImageError) as caught:
        load(file, imdecode_backend=backend)
    assert str(caught.value).startswith(f'{file}: cannot be read as an image: ')
    assert reason.lower() in str(caught.value).lower() and '\n' not in str(caught.value)


def test_a_picture_that_was_cut_off_is_refused(tmp_path):
    cut(tmp_path / 'a.png')
    with pytest.raises(UnreadableImageError, match=r'a.png: cannot be read .*truncated'):
        load(tmp_path / 'a.png')


def test_pixels_without_a_range_are_refused(tmp_path):
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / 'a.tif')
    with pytest.raises(UnreadableImageError, match=r'a.tif: .* 32 bits \(mode F\) and no known'):
        load(tmp_path / 'a.tif')


def test_an_error_of_the_disk_is_told_with_the_file(tmp_path, monkeypatch):
    picture('RGB').save(tmp_path / 'a.png')

    def broken(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(Path, 'read_bytes', broken)
    for read in (load, load_image):
        with pytest.raises(UnreadableImageError, match=r'a.png: cannot be .*: Input/output error$'):
            read(tmp_path / 'a.png')
