"""What a server answers: classes to pictures, and sentences to mistakes."""

import base64
import io
import re
import threading
from pathlib import Path

import numpy as np
import pytest
from adapters import build, write
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from running import CLASSES, TOKEN, png
from starlette.testclient import TestClient

from gleam_mm.bank import bank as bank_module
from gleam_mm.checkpoint import read_adapter, save_adapter
from gleam_mm.serve.app import create_app
from gleam_mm.serve.settings import Settings

BEARER = {'Authorization': f'Bearer {TOKEN}'}
IMAGE = {'Content-Type': 'image/png'}


def told(bank, picture, task, top_k=5):
    return [best._asdict() for best in bank(picture, tasks=task, top_k=top_k)]


def test_a_picture_as_it_is_in_a_form_and_in_base64(client, bank, files_of_pictures):
    for task in CLASSES:
        for picture in files_of_pictures[:2]:
            text = base64.b64encode(picture).decode()
            best = told(bank, picture, task)
            expected = {'task': task, 'numbers': False, 'predictions': best}
            for sent in (
                dict(content=picture, headers=IMAGE),
                dict(files={'file': ('x.png', picture)}),
                dict(json={'image': text}),
                dict(json={'image': f'data:image/png;base64,{text}'}),
            ):
                answer = client.post(f'/predict/{task}', **sent)
                assert answer.status_code == 200
                assert answer.json() == expected
    answer = client.post('/predict/birds?top_k=1', content=files_of_pictures[0], headers=IMAGE)
    assert answer.json()['predictions'] == told(bank, files_of_pictures[0], 'birds', 1)


def test_numbers_are_told_in_their_order(client, bank, files_of_pictures, tmp_path):
    head = dict(type='RegressionHead', num_classes=2, mean=[-7.0, 90.0])
    model = build(dict(type='GLEAM', rank=4, alpha=0.5), head=head)
    bank.add('sizes', write(model, tmp_path / 'a.safetensors', ['height', 'weight']))
    answer = client.post('/predict/sizes?top_k=1', content=files_of_pictures[0], headers=IMAGE)
    expected = told(bank, files_of_pictures[0], 'sizes')
    assert answer.json() == {'task': 'sizes', 'numbers': True, 'predictions': expected}
    assert [found['label'] for found in expected] == ['height', 'weight']


def test_a_task_without_numbers_is_told(client, bank, files, files_of_pictures, tmp_path):
    tensors, metadata = read_adapter(files['pets'])
    tensors['head.fc.bias'][0] = float('nan')
    save_adapter(tmp_path / 'a.safetensors', tensors, metadata)
    bank.add('diverged', tmp_path / 'a.safetensors')
    answer = client.post('/predict/diverged', content=files_of_pictures[0], headers=IMAGE)
    assert answer.status_code == 500
    assert answer.json()['error'].startswith("task 'diverged' gives numbers that are infinite or")


@pytest.mark.parametrize(
    ('path', 'sent', 'status', 'sentence'),
    [
        ('none', dict(content=b'x', headers=IMAGE), 404, "no task 'none'; there are: pets, birds"),
        ('pets', dict(content=b'', headers=IMAGE), 400, 'the picture is empty'),
        ('pets', dict(content=b'no', headers=IMAGE), 422, 'the picture: cannot be read as an'),
        ('pets', dict(content=b'no', headers={'Content-Type': 'text/html'}), 415, 'as the file of'),
        ('pets', dict(content=bytes(20_001), headers=IMAGE), 413, 'more than the 20,000 bytes'),
        ('pets', dict(content=iter([bytes(9000)] * 3), headers=IMAGE), 413, 'more than the 20,000'),
        ('pets', dict(files={'file': bytes(20_001)}), 413, 'more than the 20,000 bytes'),
        ('pets', dict(files={'file': bytes(90_000)}), 413, 'more than the'),
        ('pets', dict(files={'picture': b'x'}), 400, "the form has no file named 'file'"),
        ('pets', dict(files=[('file', b'x'), ('file', b'y')]), 400, 'the form cannot be read'),
        (
            'pets',
            dict(content=b'x', headers={'Content-Type': 'multipart/form-data'}),
            400,
            'the form cannot be read',
        ),
        ('pets', dict(json={'image': 7}), 400, 'the body has no "image"'),
        ('pets', dict(json=['x']), 400, 'the body has no "image"'),
        ('pets', dict(json={'image': 'no base64!'}), 400, '"image" is no base64'),
        (
            'pets',
            dict(content=b'{', headers={'Content-Type': 'application/json'}),
            400,
            'the body is no JSON',
        ),
        ('pets?top_k=0', dict(content=b'x', headers=IMAGE), 422, 'top_k: Input should be greater'),
        ('pets?top_k=x', dict(content=b'x', headers=IMAGE), 422, 'top_k: Input should be a valid'),
    ],
)
def test_mistakes_are_told_in_a_sentence(client, path, sent, status, sentence):
    answer = client.post(f'/predict/{path}', **sent)
    assert answer.status_code == status
    assert answer.json().keys() == {'error'}
    assert sentence in answer.json()['error'] and '\n' not in answer.json()['error']


def test_too_many_pixels_are_not_decoded(client):
    blank = png(np.zeros((100, 51, 3), np.uint8))
    assert len(blank) < 20_000
    answer = client.post('/predict/pets', content=blank, headers=IMAGE)
    assert answer.status_code == 413
    assert answer.json()['error'].startswith(
        'a picture of 51 x 100 pixels: this server takes 5,000'
    )


def test_a_strip_is_not_enlarged(client, bank, tmp_path):
    steps = [
        dict(type='ResizeEdge', scale=100),
        dict(type='CenterCrop', crop_size=32),
        dict(type='PackInputs'),
    ]
    model = build(dict(type='LinearProbe'))
    bank.add('strips', write(model, tmp_path / 'a.safetensors', pipeline=steps))
    for width, status in ((100, 200), (5000, 413)):
        strip = png(np.zeros((1, width, 3), np.uint8))
        answer = client.post('/predict/strips', content=strip, headers=IMAGE)
        assert answer.status_code == status
    assert answer.json()['error'].startswith('the picture: 5000 x 1 pixels would become 500000 x')


def test_formats_that_run_other_programs_are_refused(client):
    eps = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n'
    answer = client.post('/predict/pets', content=eps, headers=IMAGE)
    assert answer.status_code == 415
    assert answer.json()['error'].startswith('a picture in EPS: send one of BMP, GIF')


def test_tasks(client):
    found = client.get('/tasks').json()['tasks']
    assert found == {name: {'classes': len(classes)} for name, classes in CLASSES.items()}
    one = client.get('/tasks/birds').json()
    assert one['classes'] == CLASSES['birds'] and one['method']['type'] == 'GLEAM'
    assert client.get('/tasks/none').status_code == 404


def test_add_and_remove(client, bank, settings, files, files_of_pictures):
    picture, file = files_of_pictures[0], settings.folder / 'new.safetensors'
    adapter = files['birds'].read_bytes()
    answer = client.put('/tasks/new', content=adapter, headers=BEARER)
    assert answer.status_code == 201 and answer.json()['classes'] == CLASSES['birds']
    assert file.read_bytes() == adapter
    found = client.post('/predict/new', content=picture, headers=IMAGE).json()['predictions']
    assert found == told(bank, picture, 'birds')
    assert settings.build_bank().tasks == (*CLASSES, 'new')  # that of the next start
    again = client.put('/tasks/new', content=adapter, headers=BEARER)
    assert again.status_code == 409 and "'new' is there already" in again.json()['error']
    assert client.delete('/tasks/new', headers=BEARER).json() == {'removed': 'new'}
    assert not file.exists() and 'new' not in bank.tasks
    assert client.post('/predict/new', content=picture, headers=IMAGE).status_code == 404
    assert client.delete('/tasks/new', headers=BEARER).status_code == 404


def test_what_the_settings_name_is_removed_there(client, bank, settings):
    answer = client.delete('/tasks/pets', headers=BEARER)
    assert answer.status_code == 409 and answer.json()['error'].startswith(
        "task 'pets' is one of adapters in the settings of this server: remove it there"
    )
    assert 'pets' in bank.tasks and 'pets' in settings.build_bank().tasks


def test_the_next_start_after_a_kill(files, tmp_path):
    for name in ('.writing-4711-cars.safetensors', '._birds.safetensors'):
        (tmp_path / name).write_bytes(b'half of it')
    (tmp_path / 'birds.safetensors').write_bytes(files['birds'].read_bytes())
    settings = Settings(adapters={'pets': files['pets']}, folder=tmp_path, device='cpu')
    assert settings.build_bank().tasks == ('pets', 'birds')
    assert {path.name for path in tmp_path.iterdir()} == {
        '._birds.safetensors',
        'birds.safetensors',
    }
    (tmp_path / 'pets.safetensors').write_bytes(files['birds'].read_bytes())
    told = f'adapters.pets is {files["pets"]}, and the folder has {tmp_path / "pets.safetensors"}: '
    with pytest.raises(ValueError, match=re.escape(f"task 'pets' is there twice: {told}rename")):
        settings.build_bank()


def test_nothing_unchecked_has_the_name_of_a_task(client, bank, settings, files, monkeypatch):
    """Whenever the server is killed, the next one starts."""
    seen, read = [], bank_module.read_adapter

    def check(path):
        seen.append(([p.name for p in settings.folder.glob('[!.]*')], Path(path).is_file()))
        return read(path)

    monkeypatch.setattr(bank_module, 'read_adapter', check)
    answer = client.put('/tasks/new', content=files['pets'].read_bytes(), headers=BEARER)
    assert answer.status_code == 201
    assert seen == [([], True)]
    assert [path.name for path in settings.folder.iterdir()] == ['new.safetensors']
    assert 'new' in settings.build_bank().tasks


def test_a_jpeg_file_with_a_second_picture(client, bank, files_of_pictures):
    """As phones write it; Pillow calls it MPO."""
    first, second = (Image.open(io.BytesIO(data)) for data in files_of_pictures[:2])
    buffer = io.BytesIO()
    first.save(buffer, 'MPO', save_all=True, append_images=[second])
    assert Image.open(buffer).format == 'MPO'
    headers = {'Content-Type': 'image/jpeg'}
    answer = client.post('/predict/birds', content=buffer.getvalue(), headers=headers)
    assert answer.status_code == 200
    alone = io.BytesIO()
    first.save(alone, 'JPEG')
    assert answer.json()['predictions'] == told(bank, alone.getvalue(), 'birds')


def test_adapters_that_are_refused_leave_nothing(client, settings, files):
    adapter = bytearray(files['pets'].read_bytes())
    adapter[-1] ^= 1
    for name, content, status, sentence in (
        ('new', bytes(adapter), 422, "task 'new': damaged: what it holds is not"),
        ('new', b'nothing', 422, "task 'new': damaged, cut short or no safetensors file"),
        ('n w', b'x', 422, "task 'n w': a name has up to 100"),
        ('a%2Fb', b'x', 404, 'Not Found'),
        ('%2e%2e%2fx', b'x', 404, 'Not Found'),
    ):
        answer = client.put(f'/tasks/{name}', content=content, headers=BEARER)
        assert answer.status_code == status
        assert sentence in answer.json()['error']
        assert str(settings.folder) not in answer.json()['error']
    assert not list(settings.folder.iterdir())


def test_only_with_the_token(client, bank, settings):
    for headers in ({}, {'Authorization': 'Bearer wrong'}, {'Authorization': f'Basic {TOKEN}'}):
        for call in (client.put, client.delete):
            answer = call('/tasks/pets', headers=headers)
            assert answer.status_code == 401
            assert answer.headers['WWW-Authenticate'] == 'Bearer'
    assert 'pets' in bank.tasks
    with TestClient(create_app(bank, settings)) as closed:
        answer = closed.delete('/tasks/pets', headers=BEARER)
        assert answer.status_code == 403 and 'without a token' in answer.json()['error']


def test_health_readiness_and_metrics(client, bank, files_of_pictures):
    for path in ('/health', '/ready'):
        assert client.get(path).json() == {'status': 'ok'}
    for status in (200, 404):
        task = 'pets' if status == 200 else 'none'
        picture = dict(content=files_of_pictures[0], headers=IMAGE)
        assert client.post(f'/predict/{task}', **picture).status_code == status
    answer = client.get('/metrics')
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert samples['gleam_requests_total', '/predict/{task}', '200'] == 1
    assert samples['gleam_requests_total', '/predict/{task}', '404'] == 1
    assert samples['gleam_predictions_total', 'pets'] == 1
    assert samples['gleam_batch_pictures_count',] == samples['gleam_pass_seconds_count',] == 1
    assert samples['gleam_tasks',] == 3
    assert samples['gleam_memory_bytes', 'backbone'] == bank.memory.backbone
    for name in CLASSES:
        bank.remove(name)
    assert client.get('/ready').status_code == 503
    assert client.get('/health').status_code == 200


def test_after_its_end_a_server_is_not_healthy(bank, settings, files_of_pictures):
    app = create_app(bank, settings)
    with TestClient(app):
        pass
    client = TestClient(app)
    assert client.get('/health').status_code == client.get('/ready').status_code == 503
    answer = client.post('/predict/pets', content=files_of_pictures[0], headers=IMAGE)
    assert answer.status_code == 503 and 'shutting down' in answer.json()['error']


def test_one_pass_for_many_requests_and_no_more_than_wait(
    bank, settings, files_of_pictures, monkeypatch
):
    """The first pass is held up; what comes meanwhile shares the next one, but for one too many."""
    settings = settings.with_flags(max_waiting=4, max_wait_ms=0)
    sizes, go, began, scores = [], threading.Event(), threading.Event(), bank.scores

    def held_up(prepared):
        sizes.append(len(prepared))
        began.set()
        go.wait(30)
        return scores(prepared)

    monkeypatch.setattr(bank, 'scores', held_up)
    with TestClient(create_app(bank, settings)) as client:
        answers = {}

        def ask(number):
            task = list(CLASSES)[number % 3]
            answers[number] = client.post(
                f'/predict/{task}', content=files_of_pictures[number], headers=IMAGE
            )

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(5)]
        threads[0].start()
        assert began.wait(30)
        for thread in threads[1:]:
            thread.start()
        while 'gleam_waiting_pictures 4.0' not in client.get('/metrics').text:
            pass
        busy = client.post('/predict/pets', content=files_of_pictures[5], headers=IMAGE)
        assert busy.status_code == 503 and busy.headers['Retry-After'] == '1'
        assert '4 pictures are waiting already' in busy.json()['error']
        go.set()
        for thread in threads:
            thread.join()
    assert sizes == [1, 4]
    for number, answer in answers.items():
        task = list(CLASSES)[number % 3]
        assert answer.json()['task'] == task
        expected = told(bank, files_of_pictures[number], task)
        for found, known in zip(answer.json()['predictions'], expected, strict=True):
            assert found['label'] == known['label']
            assert found['score'] == pytest.approx(known['score'], rel=1e-4)


def test_a_file_that_went_costs_nobody_else_an_answer(files, tmp_path, files_of_pictures):
    """A task whose adapter was pushed out of memory, and whose file is gone."""
    lost = tmp_path / 'lost.safetensors'
    lost.write_bytes(files['birds'].read_bytes())
    settings = Settings(
        adapters={'lost': lost, 'pets': files['pets']},
        device='cpu',
        device_bytes=0,
        max_wait_ms=300,
    )
    bank = settings.build_bank()
    lost.unlink()
    with TestClient(create_app(bank, settings)) as client:
        answers = {}

        def ask(task):
            answers[task] = client.post(
                f'/predict/{task}', content=files_of_pictures[0], headers=IMAGE
            )

        threads = [threading.Thread(target=ask, args=(task,)) for task in ('lost', 'pets')]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers['pets'].json()['predictions'] == told(bank, files_of_pictures[0], 'pets')
    assert answers['lost'].status_code == 503
    assert answers['lost'].json()['error'] == "task 'lost' has changed: ask again"


def test_the_page_takes_nothing_from_elsewhere(client):
    page = client.get('/')
    assert page.headers['content-type'].startswith('text/html')
    assert "default-src 'none'; script-src 'self'" in page.headers['content-security-policy']
    for name in ('page.js', 'page.css'):
        assert name in page.text
        assert client.get(f'/{name}').status_code == 200
    assert 'innerHTML' not in client.get('/page.js').text
