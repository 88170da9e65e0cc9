/**
 * Addresses within the page: what stands after the #. Pure.
 */

/** The views by the pattern of their address; a part with a colon is a name that the view is given. */
export const ROUTES = [
  ['', 'health'],
  ['setup', 'setup'],
  ['jobs', 'jobs'],
  ['jobs/:name', 'job'],
  ['new-job', 'job-form'],
  ['edit-job/:name', 'job-form'],
  ['runs', 'runs'],
  ['runs/:id', 'run'],
  ['snapshots', 'snapshots'],
  ['snapshots/:location', 'snapshots'],
  ['snapshots/:location/:id', 'browse'],
  ['search/:location', 'search'],
  ['compare/:location', 'compare'],
  ['versions/:location', 'versions'],
  ['restore/:location/:id', 'restore'],
  ['destinations', 'destinations'],
  ['destinations/:name', 'destination'],
  ['new-destination', 'destination-form'],
  ['edit-destination/:name', 'destination-form'],
  ['settings', 'settings'],
  ['users', 'users'],
  ['users/:user', 'user'],
  ['new-user', 'user'],
];

/**
 * Finds the view that an address names.
 *
 * @param {string} hash such as #/snapshots/nas/latest?path=/home
 * @returns {{view: string, names: Object<string, string>, query: Object<string, string>}|null}
 */
export function match(hash) {
  const [path, search = ''] = hash.replace(/^#?\/?/, '').split('?', 2);
  const parts = path.split('/');
  for (const [pattern, view] of ROUTES) {
    const names = matched(pattern.split('/'), parts);
    if (names) return { view, names, query: Object.fromEntries(new URLSearchParams(search)) };
  }
  return null;
}

function matched(pattern, parts) {
  if (pattern.length !== parts.length) return null;
  const names = {};
  for (const [index, wanted] of pattern.entries()) {
    const found = decoded(parts[index]);
    if (wanted.startsWith(':')) {
      if (found === '') return null;
      names[wanted.slice(1)] = found;
    } else if (wanted !== found) {
      return null;
    }
  }
  return names;
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Makes an address of parts, which may have any characters, and a query. */
export function to(parts, query = {}) {
  const path = [parts].flat().map(encodeURIComponent).join('/');
  const said = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== '');
  const search = new URLSearchParams(said).toString();
  return `#/${path}${search === '' ? '' : `?${search}`}`;
}
