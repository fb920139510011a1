/** The page: swaps and searches images with the server that it is from. */

import {startClothes} from './clothes.js';
import {byId, showError} from './elements.js';
import {startSearch} from './search.js';
import {getJson} from './server.js';

// An image dropped beside a drop zone would replace the page.
for (const kind of ['dragover', 'drop']) window.addEventListener(kind, (event) => event.preventDefault());

try {
  const health = await getJson('health');
  const {model} = health;
  const count = (number) => number.toLocaleString('en');
  byId('about').textContent = `${model.run}, step ${count(model.step)}, trained on ${count(model.identities)} identities, `
    + `images of ${model.image_size.join(' x ')} pixels`;
  document.documentElement.style.setProperty('--image-ratio', `${model.image_size[1]} / ${model.image_size[0]}`);
  startClothes(health);
  startSearch(health);
  document.body.dataset.ready = 'yes';
} catch (error) {
  showError(error.message);
}
