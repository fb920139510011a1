'use strict';

const TYPES = ['image/jpeg', 'image/png'];
const files = {first: null, second: null, query: null};
let limit = Infinity;  // bytes of an image
let frames = [];  // from A to B
let swapped = false;  // the images of both swaps belong to A and B

const byId = (id) => document.getElementById(id);

/** Shows what is wrong; '' takes it away. */
function say(text) {
  byId('message').textContent = text;
  byId('message').hidden = !text;
}

/** An element with text, which is never taken for markup. */
function element(tag, className, text) {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

function show(id, source) {
  byId(id).src = source;
  byId(id).hidden = false;
}

/** Sends images and returns the answer; throws an Error with a message for people. */
async function ask(address, body, signal) {
  const options = {signal};
  if (body) Object.assign(options, {method: 'POST', body, headers: {'Content-Type': 'application/octet-stream'}});
  let response;
  try {
    response = await fetch(address, options);
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Error('The server does not answer. Is it still running?');
  }
  if (response.status === 503) throw new Error('Too many are asking at once. Try again in a moment.');
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error || 'That went wrong; the terminal of the server says why.');
  return answer;
}

/** Runs a section's jobs: a new one ends the one before, whose answer nobody waits for. */
function worker(section) {
  const status = byId(`${section}-status`);
  let running = null;
  return async (job) => {
    running?.abort();
    const mine = running = new AbortController();
    byId(section).classList.add('working');
    status.textContent = 'Working …';
    const start = performance.now();
    try {
      await job(mine.signal);
      if (mine === running) status.textContent = `Done in ${((performance.now() - start) / 1000).toFixed(1)} s.`;
    } catch (error) {
      if (mine !== running) return;
      status.textContent = '';
      forget(section);
      say(error.message);
    } finally {
      if (mine === running) byId(section).classList.remove('working');
    }
  };
}

/** Takes away what belongs to earlier images. */
function forget(section) {
  for (const image of byId(section).querySelectorAll('.frame img')) image.hidden = true;
  if (section === 'search') byId('matches').replaceChildren();
  else [frames, swapped, byId('slider').disabled] = [[], false, true];
}

const clothesWorker = worker('clothes');
const searchWorker = worker('search');
const what = () => document.querySelector('input[name=what]:checked').value;
const people = () => [new Blob([files.first, files.second]), `first=${files.first.size}`];

function slide() {
  if (!frames.length) return;
  const step = byId('slider').value;
  show('between', frames[step]);
  byId('between-caption').textContent = `A, ${Math.round(100 * step / (frames.length - 1))} % B's ${what()}`;
}

async function findBetween(signal) {
  const [body, length] = people();
  frames = (await ask(`interpolate?what=${what()}&${length}`, body, signal)).frames;
  byId('slider').max = frames.length - 1;
  byId('slider').disabled = false;
  slide();
}

async function swap(signal) {
  swapped = false;
  const [body, length] = people();
  const made = await ask(`swap?${length}`, body, signal);
  show('swapped-first', made.first);
  show('swapped-second', made.second);
  swapped = true;
  await findBetween(signal);
}

async function search(signal) {
  const {matches} = await ask('rank', files.query, signal);
  byId('matches').replaceChildren(...matches.map((match, i) => {
    const item = element('li', '', '');
    const image = element('img', '', '');
    image.src = match.image;
    image.alt = match.name;
    const score = element('div', 'score', '');
    score.append(element('b', '', i + 1), element('span', '', match.score.toFixed(3)));
    item.append(image, score, element('div', 'name', match.name));
    item.title = match.name;
    return item;
  }));
}

/** What is wrong with a file as far as can be told before it is sent; '' if nothing. */
function problem(file) {
  if (file.type && !TYPES.includes(file.type)) return `${file.name}: not a JPEG or PNG image`;
  const mebibytes = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
  return file.size > limit ? `${file.name}: ${mebibytes(file.size)}; ${mebibytes(limit)} are allowed` : '';
}

/** Makes a label a place for one image; `taken` is called when there is a new one. */
function makeDrop(id, letter, words, taken) {
  const drop = byId(id);
  const input = element('input', '', '');
  Object.assign(input, {type: 'file', accept: TYPES.join(), ariaLabel: `${letter} ${words}`.trim()});
  const target = element('span', 'target', '');
  const invitation = element('span', '', words);
  invitation.prepend(element('b', '', letter));
  const image = element('img', '', '');
  image.hidden = true;
  const name = element('span', 'name', letter || 'Query');
  target.append(invitation, image);
  drop.append(input, target, name);

  function take(file) {
    input.value = '';  // so that the same file can be chosen again
    if (!file) return;
    const wrong = problem(file);
    say(wrong);
    if (wrong) return;
    files[id] = file;
    URL.revokeObjectURL(image.src);
    image.src = URL.createObjectURL(file);
    image.alt = file.name;
    image.hidden = false;
    invitation.hidden = true;
    name.textContent = letter ? `${letter}: ${file.name}` : file.name;
    drop.title = file.name;
    drop.classList.add('full');
    taken();
  }

  input.addEventListener('change', () => take(input.files[0]));
  for (const kind of ['dragenter', 'dragover', 'dragleave', 'drop']) {
    drop.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle('over', kind === 'dragenter' || kind === 'dragover');
      if (kind === 'drop') take(event.dataTransfer.files[0]);
    });
  }
}

const ifBoth = (work) => () => { if (files.first && files.second) work(); };
makeDrop('first', 'A', 'drop an image, or click', ifBoth(() => clothesWorker(swap)));
makeDrop('second', 'B', 'drop an image, or click', ifBoth(() => clothesWorker(swap)));
makeDrop('query', '', 'drop an image, or click', () => searchWorker(search));
byId('slider').addEventListener('input', slide);
for (const radio of document.getElementsByName('what')) {
  radio.addEventListener('change', ifBoth(() => clothesWorker(swapped ? findBetween : swap)));
}
// Beside a place for it, an image would replace the page.
for (const kind of ['dragover', 'drop']) window.addEventListener(kind, (event) => event.preventDefault());

ask('about').then((about) => {
  limit = about.max_bytes;
  byId('about').textContent = about.model;
  byId('search-row').hidden = about.num_gallery === null;
  byId('search-hint').textContent = about.num_gallery === null
    ? 'To search images for a person, start the page with --gallery FOLDER.'
    : `An image of a person; the likest of ${about.num_gallery.toLocaleString('en')} images are shown, `
      + 'a score of 1 being the same image.';
  document.body.dataset.ready = 'yes';
}).catch((error) => say(error.message));
