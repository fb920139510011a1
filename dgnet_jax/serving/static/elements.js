/** Small pieces of the page. */

export const byId = (id) => document.getElementById(id);

/** Creates an element with text, which is never parsed as markup, or with children, and sets its properties. */
export function element(tag, className, content = '', properties = {}) {
  const created = document.createElement(tag);
  created.className = className;
  created.append(...[content].flat());
  return Object.assign(created, properties);
}

export const button = (className, text, label, onClick) =>
  element('button', className, text, {type: 'button', ariaLabel: label, onclick: onClick});

/** Creates an image, framed as the networks see it. */
export const framed = (source, alt) => element('div', 'frame', element('img', '', '', {src: source, alt}));

/** Points a link to the content of a file that the browser saves. */
export function setDownload(link, source, fileName, what) {
  Object.assign(link, {href: source, download: fileName, ariaLabel: `Download ${what}`});
  return link;
}

/** Shows an error message; '' hides it. */
export function showError(text) {
  const message = byId('message');
  message.querySelector('p').textContent = text;
  message.hidden = !text;
}

byId('message').querySelector('button').addEventListener('click', () => showError(''));
window.addEventListener('keydown', (event) => { if (event.key === 'Escape') showError(''); });

/**
 * Returns what runs a section's jobs, each a function of an AbortSignal: `run` cancels the running job and starts
 * another, whose results are shown when it has succeeded; `stop` cancels it and hides the results.
 */
export function worker(section) {
  const status = byId(section).querySelector('.status');
  const results = byId(section).querySelector('.results');
  let running = null;

  function stop() {
    running?.abort();
    running = null;
    byId(section).classList.remove('working');
    status.textContent = '';
    results.hidden = true;
  }

  async function run(job) {
    running?.abort();
    const current = running = new AbortController();
    showError('');
    byId(section).classList.add('working');
    status.textContent = 'Working …';
    const start = performance.now();
    try {
      await job(current.signal);
      if (current !== running) return;
      status.textContent = `Done in ${((performance.now() - start) / 1000).toFixed(1)} s.`;
      results.hidden = false;
    } catch (error) {
      if (current !== running) return;
      status.textContent = '';
      results.hidden = true;
      showError(error.message);
    } finally {
      if (current === running) byId(section).classList.remove('working');
    }
  }

  return {run, stop};
}
