/** Find a person: the most similar images of the gallery. */

import {byId, element, setDownload, worker} from './elements.js';
import {Picker, showPeople} from './picker.js';
import {post} from './server.js';

const work = worker('search');
const query = new Picker(byId('query'), [''], 'drop an image, or click', () => {
  if (query.files.length) work.run(search);
  else work.stop();
});

/** Returns rows as CSV (RFC 4180). */
const csv = (rows) => rows.map((row) => row.map((cell) => `"${String(cell).replaceAll('"', '""')}"`).join(',')).join('\r\n');

async function search(signal) {
  const {rankings: [matches]} = await post('rank', {images: query.files}, signal);
  byId('matches').replaceChildren(...matches.map((match, i) => {
    const image = element('img', '', '', {src: `gallery/${match.index}`, alt: `Match ${i + 1}: ${match.path}`});
    const score = element('div', 'score', [element('b', '', i + 1), element('span', '', match.score.toFixed(3))]);
    if (match.same_person) score.append(element('span', 'same', '✓ same person'));
    return element('li', '', [image, score, element('div', 'name', match.path)], {title: match.path});
  }));
  const rows = matches.map((match, i) => [i + 1, match.score, match.same_person ?? '', match.path]);
  const table = csv([['rank', 'score', 'same_person', 'path'], ...rows]);
  const name = `matches_of_${query.files[0].name}.csv`;
  setDownload(byId('table-download'), `data:text/csv;charset=utf-8,${encodeURIComponent(table)}`, name, 'the table of matches');
}

/** Begins, with what /health says. */
export function startSearch({gallery, limits}) {
  query.maxBytes = limits.image_bytes;
  byId('search-work').hidden = gallery === null;
  byId('search-hint').textContent = gallery === null
    ? 'To search images for a person, start the page with --gallery FOLDER.'
    : `An image of a person finds the most similar of ${gallery.toLocaleString('en')} gallery images. The same file scores 1.`;
  if (gallery) {
    const people = byId('search').querySelector('.people');
    showPeople(people, gallery, (file) => {
      query.files = [file];
      query.update();
    });
  }
}
