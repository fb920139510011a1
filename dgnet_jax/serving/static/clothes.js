/** Change clothes: a person and donors of clothes, what they look like swapped, and one pair more closely. */

import {button, byId, element, framed, setDownload, worker} from './elements.js';
import {hideOrigins, showOrigins} from './origins.js';
import {Picker, showPeople} from './picker.js';
import {png, post} from './server.js';

const DONORS = [...'BCDEFGHI'];

const work = worker('clothes');
const results = byId('clothes').querySelector('.results');
const person = new Picker(byId('person'), ['A'], 'drop an image, or click', () => swapAll());
const donors = new Picker(byId('donors'), DONORS, 'drop images, or click', () => swapAll());
let showsOrigins = false;
let donor = null;  // of the pair that is looked at closely
let frames = [];  // of the interpolation from A to the donor

const change = () => document.querySelector('input[name=change]:checked').value;
const stem = (file) => file.name.replace(/\.[^.]*$/, '');
const fileName = (wearer, of) => `${stem(wearer)}_in_clothes_of_${stem(of)}.png`;

/** Shows the frame that the slider points to. */
function showFrame() {
  const step = Number(byId('slider').value);
  const share = Math.round(100 * step / (frames.length - 1));
  const caption = `A, ${share}% ${donors.letterOf(donor)}’s ${change()}`;
  Object.assign(byId('frame'), {src: frames[step], alt: caption});
  byId('frame-caption').textContent = caption;
  byId('slider').ariaValueText = caption;
  const name = `${stem(person.files[0])}_${share}_percent_${change()}_of_${stem(donor)}.png`;
  setDownload(byId('frame-download'), frames[step], name, caption);
}

async function interpolate(signal) {
  const {images} = await post('interpolate', {images: [person.files[0], donor], change: change()}, signal);
  frames = images.map(png);
  const letter = donors.letterOf(donor);
  byId('interpolation').querySelector('h3').textContent = `From A to ${letter}`;
  byId('interpolation').querySelector('legend').textContent = 'Change A’s';
  byId('interpolation').querySelector('.slider span').textContent = `From A to ${letter}`;
  byId('slider').max = frames.length - 1;
  showFrame();
}

/** Looks closely at the pair of A and a donor. */
async function look(signal, chosen) {
  donor = chosen;
  const pairs = [...byId('swaps').children];
  for (const pair of pairs) pair.querySelector('button').ariaPressed = pair.donor === donor;
  hideOrigins();
  await interpolate(signal);
  if (!showsOrigins) return;
  const {src} = pairs.find((pair) => pair.donor === donor).querySelector('img');
  await showOrigins(person.files[0], donor, src, donors.letterOf(donor), signal);
}

/** Creates the tile of one generated image. */
function swapped(source, caption, name) {
  const link = setDownload(element('a', 'download', 'Download'), source, name, caption);
  return element('figure', '', [framed(source, caption), element('figcaption', '', caption), link]);
}

async function swap(signal) {
  const [[wearer], others] = [person.files, [...donors.files]];
  const there = (await post('swap', {structures: wearer, appearances: others}, signal)).images.map(png);
  const back = (await post('swap', {structures: others, appearances: wearer}, signal)).images.map(png);
  byId('swaps').replaceChildren(...others.map((other, i) => {
    const letter = donors.letterOf(other);
    const closer = button('', 'Look closer', `Look closer at A and ${letter}`, () => work.run((next) => look(next, other)));
    return Object.assign(element('li', 'pair', [
      element('div', 'row', [
        swapped(there[i], `A in ${letter}’s clothes`, fileName(wearer, other)),
        swapped(back[i], `${letter} in A’s clothes`, fileName(other, wearer)),
      ]),
      closer,
    ]), {donor: other});
  }));
  results.inert = false;
  await look(signal, others.includes(donor) ? donor : others[0]);
}

/** Swaps, when there are a person and donors. */
function swapAll() {
  results.inert = true;  // what is shown is of other people until these are swapped
  if (person.files.length && donors.files.length) work.run(swap);
  else work.stop();
}

/** Begins, with what /health says. */
export function startClothes({model, gallery, limits}) {
  if (model.design === null) {
    byId('clothes-work').hidden = true;
    byId('clothes-hint').textContent = 'This run was trained with joint=False: it has no generator to change clothes with.';
    return;
  }
  showsOrigins = model.design === 'correspondence';
  person.maxBytes = donors.maxBytes = limits.image_bytes;
  byId('slider').addEventListener('input', showFrame);
  for (const radio of document.getElementsByName('change')) radio.addEventListener('change', () => work.run(interpolate));
  if (gallery) {
    const people = byId('clothes').querySelector('.people');
    showPeople(people, gallery, (file) => (person.isFull ? donors : person).add([file]));
  }
}
