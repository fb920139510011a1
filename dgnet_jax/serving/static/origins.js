/** Shows where the pixels of a swap come from. */

import {byId, element, framed} from './elements.js';
import {floats, png, post} from './server.js';

/** Reads the gray values of an image. */
async function grayValues(image) {
  await image.decode();
  const [width, height] = [image.naturalWidth, image.naturalHeight];
  const context = new OffscreenCanvas(width, height).getContext('2d');
  context.drawImage(image, 0, 0);
  const {data} = context.getImageData(0, 0, width, height);
  return {width, height, at: (row, column) => data[4 * (row * width + column)] / 255};
}

export function hideOrigins() {
  byId('origins').hidden = true;
}

/**
 * Shows the origins of A's image in a donor's clothes.
 *
 * @param {File} structure the image of A.
 * @param {File} appearance the image of the donor.
 * @param {string} result address of the swapped image.
 * @param {string} letter of the donor.
 * @param {AbortSignal} signal
 */
export async function showOrigins(structure, appearance, result, letter, signal) {
  const {traces: [trace]} = await post('trace', {structures: structure, appearances: appearance}, signal);
  const caption = `A in ${letter}’s clothes`;
  const tile = (source, name, alt) => element('li', '', [framed(source, alt), element('span', 'name', name)], {title: alt});
  const tiles = [
    tile(result, 'Result', `Result: ${caption}`),
    tile(URL.createObjectURL(appearance), letter, `${letter}: ${appearance.name}`),
    tile(png(trace.fetched), 'Fetched', `Pixels fetched from ${letter}, in the light of A`),
    tile(png(trace.places), 'Places', `Where they were fetched, as a colour: red to the right, green to the bottom`),
    tile(png(trace.trust), 'Trust', 'Trust: white where everything that was generated was fetched'),
    tile(png(trace.mask), 'Mask', 'Mask: white was generated, black was kept of A'),
  ];
  const list = byId('origins').querySelector('ul');
  for (const image of list.querySelectorAll('img[src^="blob:"]')) URL.revokeObjectURL(image.src);
  list.replaceChildren(...tiles);
  const [trust, mask] = await Promise.all([tiles[4], tiles[5]].map((item) => grayValues(item.querySelector('img'))));
  signal.throwIfAborted();
  makePointer(tiles[0], tiles[1], letter, {place: floats(trace.place), trust, mask});
  byId('origins').querySelector('h3').textContent = `Where the pixels of ${caption} come from`;
  byId('origins').hidden = false;
}

/** Lets a cross in the result be moved; another one shows the place in the donor's image. */
function makePointer(result, donor, letter, {place, trust, mask}) {
  const {width, height} = mask;
  const crosses = [result, donor].map((tile) => {
    const cross = element('span', 'cross');
    tile.querySelector('.frame').append(cross);
    return cross;
  });
  const move = (cross, row, column) => {
    cross.style.left = `${100 * (column + 0.5) / width}%`;
    cross.style.top = `${100 * (row + 0.5) / height}%`;
  };
  const within = (value, size) => Math.max(0, Math.min(size - 1, value));
  const target = result.querySelector('.frame');
  target.classList.add('pointed');
  Object.assign(target, {tabIndex: 0, role: 'application', ariaLabel: 'A point in the result; arrow keys move it'});
  let [row, column] = [Math.floor(height / 3), Math.floor(width / 2)];

  function show(newRow, newColumn) {
    [row, column] = [within(newRow, height), within(newColumn, width)];
    const from = [0, 1].map((axis) => place[2 * (row * width + column) + axis]);
    move(crosses[0], row, column);
    move(crosses[1], within(from[0], height), within(from[1], width));
    const percent = (map) => `${Math.round(100 * map.at(row, column))}%`;
    byId('origin').textContent = `Row ${row}, column ${column}: ${percent(mask)} generated, of that ${percent(trust)} fetched `
      + `from row ${from[0].toFixed(1)}, column ${from[1].toFixed(1)} of ${letter}.`;
  }

  const follow = (event) => {
    const box = target.getBoundingClientRect();
    show(Math.floor(height * (event.clientY - box.top) / box.height), Math.floor(width * (event.clientX - box.left) / box.width));
  };
  target.addEventListener('pointermove', follow);
  target.addEventListener('pointerdown', follow);
  target.addEventListener('keydown', (event) => {
    const step = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}[event.key];
    if (!step) return;
    event.preventDefault();
    show(row + step[0], column + step[1]);
  });
  show(row, column);
}
