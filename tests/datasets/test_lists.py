"""Lists of images: what a line may be, and what is said of one that may not."""

import os

import pytest

from gleam_mm.datasets import ImageListError
from gleam_mm.datasets.lists import read_list

NAMES = {'ant': 0, 'great white': 1, 'white': 2}


def read(content, tmp_path, names=NAMES):
    (tmp_path / 'list.txt').write_bytes(content)
    return [line[1:] for line in read_list(tmp_path / 'list.txt', names)]


@pytest.mark.parametrize(
    ('line', 'expected'),
    [
        ('a.jpg 1', ('a.jpg', 1)),
        ('a b/c  d.jpg   2', ('a b/c  d.jpg', 2)),
        ('a.jpg\t-1', ('a.jpg', -1)),
        ('x/a.jpg ant', ('x/a.jpg', 0)),
        ('a.jpg white', ('a.jpg', 2)),
        ('b/a.jpg great white', ('b/a.jpg', 1)),
        ('a..b/..c/...jpg 0', ('a..b/..c/...jpg', 0)),
    ],
)
def test_a_line_is_split_before_its_label(line, expected, tmp_path):
    assert read(f'{line}\r\n\n'.encode(), tmp_path) == [expected]


def test_numbers_are_names_where_no_class_has_that_number(tmp_path):
    years = {'1990': 0, '2000': 1}
    assert read(b'a.jpg 2000\nb.jpg 0\nc.jpg 7\n', tmp_path, years) == [
        ('a.jpg', 1),
        ('b.jpg', 0),
        ('c.jpg', 7),
    ]


def test_a_byte_order_mark_is_no_part_of_the_first_path(tmp_path):
    content = '\ufeffé.jpg 0\nb.jpg 1\n'.encode()
    assert read(content, tmp_path) == [('é.jpg', 0), ('b.jpg', 1)]


@pytest.mark.parametrize(
    ('line', 'told'),
    [
        (b'../b.jpg 0', 'leads out of the folder'),
        (b'a/../../b.jpg ant', 'leads out of the folder'),
        (b'a\\..\\b.jpg 0', 'leads out of the folder'),
        (b'/etc/b.jpg 0', 'leads out of the folder'),
        (b'C:\\b.jpg 0', 'leads out of the folder'),
        (b'b.jpg ants', "found 'b.jpg ants' (did you mean 'ant'?)"),
        (b'b.jpg 1.5', 'expected `<image path> <label>`'),
        (b'b.jpg', 'expected `<image path> <label>`'),
        ('ü.jpg 1'.encode('latin-1'), 'not UTF-8'),
        ('b.jpg 1'.encode('utf-16'), 'not UTF-8'),
    ],
)
def test_what_is_wrong_is_told_with_file_and_line(line, told, tmp_path):
    with pytest.raises(ImageListError) as caught:
        read(b'a.jpg 0\n' + line, tmp_path)
    assert str(caught.value).startswith(f'{tmp_path}/list.txt, line 2: ')
    assert told in str(caught.value)


def test_a_list_that_is_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / 'list.txt')
    with pytest.raises(ImageListError, match=r'list.txt: a list must be a regular file'):
        next(read_list(tmp_path / 'list.txt'))
