/** Requests to the server that the page is from. */

/** Sends a request, with a form if there is one, and returns the response; throws an Error with a message for people. */
async function send(address, form, signal) {
  let response;
  try {
    response = await fetch(address, form ? {method: 'POST', body: form, signal} : {signal});
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Error('No response from the server. Is it still running?');
  }
  if (response.ok) return response;
  const {error} = await response.json().catch(() => ({}));
  throw new Error(error?.message || 'The server failed. See the error in its terminal.');
}

export const getJson = async (address) => (await send(address)).json();
export const getBlob = async (address) => (await send(address)).blob();

/** Posts fields, each of them one value or a list, and returns the answer. */
export async function post(address, fields, signal) {
  const form = new FormData();
  for (const [name, values] of Object.entries(fields)) for (const value of [values].flat()) form.append(name, value);
  return (await send(address, form, signal)).json();
}

export const png = (base64) => `data:image/png;base64,${base64}`;

/** Decodes base64 of little-endian float32. */
export function floats(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float32Array.from({length: bytes.length / 4}, (_, i) => view.getFloat32(4 * i, true));
}
