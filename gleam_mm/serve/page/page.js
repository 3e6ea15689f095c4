'use strict';

// What the server says becomes text, and never markup: textContent alone is set.
const element = (id) => document.getElementById(id);
let picture = null;
let asked = 0;

function tell(text) {
  element('told').textContent = text;
}

async function listTasks() {
  const answer = await fetch('tasks');
  const { tasks } = await answer.json();
  for (const name of Object.keys(tasks)) {
    const option = document.createElement('option');
    option.value = option.textContent = name;
    element('task').append(option);
  }
  if (!Object.keys(tasks).length) tell('This server has no tasks yet.');
}

function show(predictions, numbers) {
  element('classes').replaceChildren(
    ...predictions.map(({ label, score }) => {
      const line = document.createElement('li');
      if (numbers) {
        line.append(`${label} ${Number(score.toPrecision(6))}`);
        return line;
      }
      const meter = document.createElement('meter');
      meter.value = score;
      line.append(`${label} ${(100 * score).toFixed(1)} %`, meter);
      return line;
    }),
  );
}

async function ask() {
  const task = element('task').value;
  if (!picture || !task) return;
  const mine = ++asked;
  const form = new FormData();
  form.append('file', picture);
  tell('...');
  let body;
  try {
    const answer = await fetch(`predict/${encodeURIComponent(task)}?top_k=5`, {
      method: 'POST',
      body: form,
    });
    body = await answer.json();
  } catch (error) {
    body = { error: `The server does not answer: ${error.message}` };
  }
  if (mine !== asked) return; // another picture was dropped meanwhile
  tell(body.error ?? task);
  show(body.predictions ?? [], body.numbers);
}

function take(files) {
  if (!files.length) return;
  picture = files[0];
  const shown = element('shown');
  URL.revokeObjectURL(shown.src);
  shown.src = URL.createObjectURL(picture);
  shown.hidden = false;
  ask();
}

const drop = element('drop');
for (const name of ['dragenter', 'dragover']) {
  drop.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.add('over');
  });
}
drop.addEventListener('dragleave', () => drop.classList.remove('over'));
drop.addEventListener('drop', (event) => {
  event.preventDefault();
  drop.classList.remove('over');
  take(event.dataTransfer.files);
});
element('file').addEventListener('change', (event) => take(event.target.files));
element('task').addEventListener('change', ask);
listTasks().catch((error) => tell(`The server does not answer: ${error.message}`));
