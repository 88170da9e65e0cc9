/**
 * The calls of the HTTP API, with the cookie of the log-in.
 */

const BASE = '/api/v1';

let csrf = '';

/** What the server refused, in its own words. */
export class Problem extends Error {
  /**
   * @param {number} status 0 if the server was not reached
   * @param {string} detail
   * @param {string|null} field the field of the request that is wrong, dotted
   * @param {number|null} code the exit code of larder, where a command failed
   */
  constructor(status, detail, field = null, code = null) {
    super(detail);
    this.status = status;
    this.field = field;
    this.code = code;
  }
}

/** Logs in with a token, and gives the session. */
export async function logIn(token) {
  return remembered(await call('POST', '/login', { token }, { base: '' }));
}

/** Gives the session of a page that was loaded again, or null without one. */
export async function session() {
  try {
    return remembered(await call('GET', '/session', undefined, { base: '' }));
  } catch (problem) {
    if (problem.status === 401) return null;
    throw problem;
  }
}

function remembered(found) {
  csrf = found.csrf ?? '';
  return found;
}

/** Ends the session. */
export const logOut = () => call('POST', '/logout', {}, { base: '' });

/** Reads something. */
export const get = (path, query = {}, signal = undefined) => call('GET', path + queryText(query), undefined, { signal });

/** Makes something. */
export const post = (path, body = {}, options = {}) => call('POST', path, body, options);

/** Changes something. */
export const patch = (path, body) => call('PATCH', path, body);

/** Puts something in place of what was there. */
export const put = (path, body) => call('PUT', path, body);

/** Removes something. */
export const remove = (path) => call('DELETE', path);

/** Starts a run; the key keeps a second click, or a request sent again, from starting another. */
export const start = (path, body = {}) => post(path, body, { idempotencyKey: crypto.randomUUID?.() ?? randomKey() });

/** Without TLS, and not on this machine, a browser has no randomUUID. */
function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(16)).join('-');
}

/** Gives the address of a download, for a plain link. */
export const address = (path, query = {}) => BASE + path + queryText(query);

/** Makes one part of a path of a name that may have any characters. */
export const part = (name) => encodeURIComponent(name);

async function call(method, path, body = undefined, { signal, idempotencyKey, base = BASE } = {}) {
  const headers = { accept: 'application/json' };
  if (body !== undefined) headers['content-type'] = 'application/json';
  if (idempotencyKey) headers['idempotency-key'] = idempotencyKey;
  if (method !== 'GET' && csrf) headers['x-csrf-token'] = csrf;
  const text = body === undefined ? undefined : JSON.stringify(body);
  let response;
  try {
    response = await fetch(base + path, { method, headers, body: text, signal, credentials: 'same-origin' });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Problem(0, 'The server does not answer. Is larder serve still running?');
  }
  if (response.ok) return response.status === 204 ? null : response.json();
  const problem = await problemOf(response);
  if (problem.status === 401 && base === BASE) {
    window.dispatchEvent(new Event('larder:logged-out'));
  }
  throw problem;
}

async function problemOf(response) {
  const told = await response.json().catch(() => ({}));
  const detail = told.detail ?? told.title ?? `The server answered with ${response.status}.`;
  return new Problem(response.status, detail, told.field ?? null, told.code ?? null);
}

function queryText(query) {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const one of [value].flat()) {
      if (one !== null && one !== undefined && one !== '') search.append(name, String(one));
    }
  }
  const text = search.toString();
  return text === '' ? '' : `?${text}`;
}

/**
 * Follows a run until it ends or the signal aborts.
 *
 * @param {string} id
 * @param {{run?: function, status?: function, line?: function, end?: function, lost?: function}} listeners what is called with
 *   the record at the beginning, each status, each line of the log, and the record at the end; `lost` while there is no connection
 * @param {AbortSignal} signal
 */
export function follow(id, listeners, signal) {
  const source = new EventSource(address(`/runs/${part(id)}/events`));
  for (const name of ['run', 'status', 'line', 'end']) {
    source.addEventListener(name, (event) => {
      if (name === 'end') source.close();
      listeners[name]?.(JSON.parse(event.data));
    });
  }
  source.addEventListener('error', () => {
    if (source.readyState !== EventSource.CLOSED) listeners.lost?.();
  });
  signal.addEventListener('abort', () => source.close());
}
