/** Images that the user chooses. */

import {button, element, framed, showError} from './elements.js';
import {getBlob} from './server.js';

const TYPES = ['image/jpeg', 'image/png', 'image/bmp', 'image/webp'];
const NUM_PEOPLE = 12;  // of the gallery that are shown to be clicked

/** Returns the problem with a file that can be found before it is sent, or ''. */
function findProblem(file, maxBytes) {
  if (file.type && !TYPES.includes(file.type)) return `${file.name}: not a JPEG, PNG, BMP or WebP image`;
  const mebibytes = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
  return file.size > maxBytes ? `${file.name}: ${mebibytes(file.size)}; at most ${mebibytes(maxBytes)} are allowed` : '';
}

/** A list of chosen images, with a place to drop more. */
export class Picker {
  /**
   * @param {HTMLElement} list gets a tile for every image.
   * @param {string[]} letters name the images; there are at most as many.
   * @param {string} invitation is shown where images can be dropped.
   * @param {function()} onChange is called when the images have changed.
   */
  constructor(list, letters, invitation, onChange) {
    Object.assign(this, {list, letters, invitation, onChange, maxBytes: Infinity, files: []});
    this.input = element('input', '', '', {
      type: 'file', accept: TYPES.join(), multiple: letters.length > 1,
    });
    this.letter = element('b');
    this.zone = element('label', 'add', [this.input, element('span', '', [this.letter, invitation])]);
    this.place = element('li', '', this.zone);
    this.show();
    this.input.addEventListener('change', () => {
      this.add([...this.input.files]);
      this.input.value = '';  // so that the same file can be chosen again
    });
    for (const kind of ['dragenter', 'dragover', 'dragleave', 'drop']) {
      this.zone.addEventListener(kind, (event) => {
        event.preventDefault();
        this.zone.classList.toggle('over', kind === 'dragenter' || kind === 'dragover');
        if (kind === 'drop') this.add([...event.dataTransfer.files]);
      });
    }
  }

  get isFull() { return this.files.length === this.letters.length; }
  letterOf(file) { return this.letters[this.files.indexOf(file)]; }

  /** Adds files, as many as there is room for. */
  add(files) {
    if (!files.length) return;
    const room = this.letters.length - this.files.length;
    const problem = files.map((file) => findProblem(file, this.maxBytes)).find(Boolean)
      || (files.length > room ? `${files.length} images: there is room for ${room} here. Remove some first.` : '');
    showError(problem);
    if (problem) return;
    this.files.push(...files);
    this.update();
  }

  remove(file) {
    this.files.splice(this.files.indexOf(file), 1);
    this.update();
    this.input.focus();
  }

  update() {
    this.show();
    this.onChange();
  }

  show() {
    for (const image of this.list.querySelectorAll('img')) URL.revokeObjectURL(image.src);
    const tiles = this.files.map((file, i) => {
      const name = [this.letters[i], file.name].filter(Boolean).join(': ');
      const close = button('remove', '✕', `Remove ${name}`, () => this.remove(file));
      return element('li', '', [framed(URL.createObjectURL(file), name), element('span', 'name', name), close], {title: name});
    });
    const next = this.isFull ? '' : this.letters[this.files.length];
    this.letter.textContent = next;
    this.input.ariaLabel = `${next} ${this.invitation}`.trim();
    this.list.replaceChildren(...tiles, ...(this.isFull ? [] : [this.place]));
  }
}

/** Shows people of the gallery, spread evenly over it; `onClick` gets the image of one as a file, in order of clicks. */
export function showPeople(container, numImages, onClick) {
  let clicks = Promise.resolve();
  const count = Math.min(NUM_PEOPLE, numImages);
  const indices = Array.from({length: count}, (_, i) => Math.round(i * (numImages - 1) / Math.max(1, count - 1)));
  container.querySelector('ul').replaceChildren(...indices.map((index) => {
    const address = `gallery/${index}`;
    const choose = button('', '', `Choose gallery image ${index}`, () => {
      const content = getBlob(address);
      clicks = clicks.then(async () => {
        onClick(new File([await content], `gallery-${index}.png`, {type: 'image/png'}));
      }).catch((error) => showError(error.message));
    });
    choose.append(element('img', '', '', {src: address, alt: ''}));  // the button has the name
    return element('li', '', choose);
  }));
  container.hidden = false;
}
