'use strict';

const TYPES = ['image/jpeg', 'image/png', 'image/bmp', 'image/webp'];
const files = {first: null, second: null, query: null};
let maxBytes = Infinity;  // of an image
let frames = [];  // of the interpolation from A to B
let swapsShown = false;  // both swaps of the current A and B are shown

const byId = (id) => document.getElementById(id);

/** Shows an error message; '' hides it. */
function showError(text) {
  byId('message').textContent = text;
  byId('message').hidden = !text;
}

/** Creates an element with text, which is never parsed as markup. */
function element(tag, className, text) {
  const created = document.createElement(tag);
  created.className = className;
  created.textContent = text;
  return created;
}

function showImage(id, source) {
  byId(id).src = source;
  byId(id).hidden = false;
}

/** Sends a request, with a form if there is one, and returns the answer; throws an Error with a message for the user. */
async function request(address, form, signal) {
  let response;
  try {
    response = await fetch(address, form ? {method: 'POST', body: form, signal} : {signal});
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Error('No response from the server. Is it still running?');
  }
  const result = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(result.error?.message || 'The server failed. See the error in its terminal.');
  return result;
}

/** Returns a form with the given fields; each value of a list is a field of its own. */
function formOf(fields) {
  const form = new FormData();
  for (const [name, values] of Object.entries(fields)) for (const value of [values].flat()) form.append(name, value);
  return form;
}

const png = (base64) => `data:image/png;base64,${base64}`;

/** Returns a function that runs a section's jobs; a new job cancels the running one. */
function worker(section) {
  const status = byId(`${section}-status`);
  let running = null;
  return async (job) => {
    running?.abort();
    const current = running = new AbortController();
    byId(section).classList.add('working');
    status.textContent = 'Working …';
    const start = performance.now();
    try {
      await job(current.signal);
      if (current === running) status.textContent = `Done in ${((performance.now() - start) / 1000).toFixed(1)} s.`;
    } catch (error) {
      if (current !== running) return;
      status.textContent = '';
      clearResults(section);
      showError(error.message);
    } finally {
      if (current === running) byId(section).classList.remove('working');
    }
  };
}

/** Hides the results of earlier images. */
function clearResults(section) {
  for (const image of byId(section).querySelectorAll('.frame img')) image.hidden = true;
  if (section === 'search') byId('matches').replaceChildren();
  else [frames, swapsShown, byId('slider').disabled] = [[], false, true];
}

const clothesWorker = worker('clothes');
const searchWorker = worker('search');
const change = () => document.querySelector('input[name=change]:checked').value;

/** Shows the frame that the slider points to. */
function showFrame() {
  if (!frames.length) return;
  const step = byId('slider').value;
  showImage('frame', frames[step]);
  byId('frame-caption').textContent = `A, ${Math.round(100 * step / (frames.length - 1))} % B's ${change()}`;
}

async function interpolate(signal) {
  const form = formOf({images: [files.first, files.second], change: change()});
  frames = (await request('interpolate', form, signal)).images.map(png);
  byId('slider').max = frames.length - 1;
  byId('slider').disabled = false;
  showFrame();
}

async function swap(signal) {
  swapsShown = false;
  const {first, second} = files;
  const {images} = await request('swap', formOf({structures: [first, second], appearances: [second, first]}), signal);
  showImage('swapped-first', png(images[0]));
  showImage('swapped-second', png(images[1]));
  swapsShown = true;
  await interpolate(signal);
}

async function search(signal) {
  const {rankings: [matches]} = await request('rank', formOf({images: files.query}), signal);
  byId('matches').replaceChildren(...matches.map((match, i) => {
    const item = element('li', '', '');
    const image = element('img', '', '');
    image.src = `gallery/${match.index}`;
    image.alt = match.path;
    const score = element('div', 'score', '');
    score.append(element('b', '', i + 1), element('span', '', match.score.toFixed(3)));
    if (match.same_person) score.append(element('span', 'same', '✓ same person'));
    item.append(image, score, element('div', 'name', match.path));
    item.title = match.path;
    return item;
  }));
}

/** Returns the problem with a file that can be found before it is sent, or ''. */
function findProblem(file) {
  if (file.type && !TYPES.includes(file.type)) return `${file.name}: not a JPEG, PNG, BMP or WebP image`;
  const mebibytes = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
  return file.size > maxBytes ? `${file.name}: ${mebibytes(file.size)}; at most ${mebibytes(maxBytes)} are allowed` : '';
}

/** Turns a label into a drop zone for one image; `onImage` is called for every new one. */
function makeDropZone(id, letter, invitation, onImage) {
  const zone = byId(id);
  const input = element('input', '', '');
  Object.assign(input, {type: 'file', accept: TYPES.join(), ariaLabel: `${letter} ${invitation}`.trim()});
  const target = element('span', 'target', '');
  const prompt = element('span', '', invitation);
  prompt.prepend(element('b', '', letter));
  const image = element('img', '', '');
  image.hidden = true;
  const name = element('span', 'name', letter || 'Query');
  target.append(prompt, image);
  zone.append(input, target, name);

  function accept(file) {
    input.value = '';  // so that the same file can be chosen again
    if (!file) return;
    const problem = findProblem(file);
    showError(problem);
    if (problem) return;
    files[id] = file;
    URL.revokeObjectURL(image.src);
    image.src = URL.createObjectURL(file);
    image.alt = file.name;
    image.hidden = false;
    prompt.hidden = true;
    name.textContent = letter ? `${letter}: ${file.name}` : file.name;
    zone.title = file.name;
    zone.classList.add('full');
    onImage();
  }

  input.addEventListener('change', () => accept(input.files[0]));
  for (const kind of ['dragenter', 'dragover', 'dragleave', 'drop']) {
    zone.addEventListener(kind, (event) => {
      event.preventDefault();
      zone.classList.toggle('over', kind === 'dragenter' || kind === 'dragover');
      if (kind === 'drop') accept(event.dataTransfer.files[0]);
    });
  }
}

/** Returns a function that starts a job once both A and B have been chosen. */
const withBoth = (start) => () => { if (files.first && files.second) start(); };
makeDropZone('first', 'A', 'drop an image, or click', withBoth(() => clothesWorker(swap)));
makeDropZone('second', 'B', 'drop an image, or click', withBoth(() => clothesWorker(swap)));
makeDropZone('query', '', 'drop an image, or click', () => searchWorker(search));
byId('slider').addEventListener('input', showFrame);
for (const radio of document.getElementsByName('change')) {
  radio.addEventListener('change', withBoth(() => clothesWorker(swapsShown ? interpolate : swap)));
}
// An image dropped beside a drop zone would replace the page.
for (const kind of ['dragover', 'drop']) window.addEventListener(kind, (event) => event.preventDefault());

request('health').then(({model, gallery, limits}) => {
  maxBytes = limits.image_bytes;
  const count = (number) => number.toLocaleString('en');
  byId('about').textContent = `${model.run}, step ${count(model.step)}, trained on ${count(model.identities)} identities, `
    + `images of ${model.image_size.join(' x ')} pixels`;
  byId('search-row').hidden = gallery === null;
  byId('search-hint').textContent = gallery === null
    ? 'To search images for a person, start the page with --gallery FOLDER.'
    : `An image of a person finds the most similar of ${count(gallery)} gallery images. The same image scores 1.`;
  document.body.dataset.ready = 'yes';
}).catch((error) => showError(error.message));
