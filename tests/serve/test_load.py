"""Many clients at once over loopback: no answer is lost or that of another task or picture."""

import asyncio
import time

import httpx2 as httpx
import pytest
from running import CLASSES, TOKEN, running

from gleam_mm.serve.app import create_app

BEARER = {'Authorization': f'Bearer {TOKEN}'}
SECONDS = 300


@pytest.mark.parametrize(
    ('clients', 'requests', 'changes'),
    [(16, 6, 3), pytest.param(64, 25, 20, marks=pytest.mark.slow)],
)
def test_under_load(bank, settings, files, files_of_pictures, clients, requests, changes):
    """Each client asks for a task and a picture of its own choice; others add and remove tasks."""
    names = [*CLASSES, 'new0', 'new1']  # the last two come and go, and are birds
    expected = {
        name: bank(files_of_pictures, tasks='birds' if name.startswith('new') else name, top_k=5)
        for name in names
    }
    adapter = files['birds'].read_bytes()

    async def ask(client, number):
        answers = []
        for i in range(requests):
            name, picture = names[(number + i) % 5], (7 * number + i) % len(files_of_pictures)
            answer = await client.post(
                f'/predict/{name}',
                content=files_of_pictures[picture],
                headers={'Content-Type': 'image/png'},
            )
            answers.append((name, picture, answer))
        return answers

    async def change(client, name):
        for _ in range(changes):
            added = await client.put(f'/tasks/{name}', content=adapter, headers=BEARER)
            removed = await client.delete(f'/tasks/{name}', headers=BEARER)
            assert (added.status_code, removed.status_code) == (201, 200)

    async def all_of_them(address):
        limits = httpx.Limits(max_connections=clients + 2)
        async with httpx.AsyncClient(base_url=address, limits=limits, timeout=SECONDS) as client:
            asking = [ask(client, number) for number in range(clients)]
            return await asyncio.gather(change(client, 'new0'), change(client, 'new1'), *asking)

    start = time.monotonic()
    with running(create_app(bank, settings, TOKEN)) as address:
        _, _, *answers = asyncio.run(asyncio.wait_for(all_of_them(address), SECONDS))
        metrics = httpx.get(f'{address}/metrics').text
    seconds = time.monotonic() - start
    flat = [answer for of_client in answers for answer in of_client]
    assert len(flat) == clients * requests
    right = 0
    for name, picture, answer in flat:
        if answer.status_code == 404 and name.startswith('new'):
            continue
        assert answer.status_code == 200
        assert answer.json()['task'] == name
        found, known = answer.json()['predictions'], expected[name][picture]
        assert [best['label'] for best in found] == [best.label for best in known]
        assert [best['score'] for best in found] == pytest.approx(
            [best.score for best in known], rel=1e-4
        )
        right += 1
    assert right >= clients * requests * 3 // 5
    assert bank.tasks == tuple(CLASSES)
    passes = next(
        float(line.split()[1])
        for line in metrics.splitlines()
        if line.startswith('gleam_batch_pictures_count')
    )
    print(f'{right} answers in {passes:.0f} passes, {seconds:.1f} s')
    assert passes < right  # requests share passes
