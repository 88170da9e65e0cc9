/**
 * Paths in snapshots and on the machine. Pure.
 */

/** Gives the last part of a path; of a bucket or database its URL. */
export function baseName(path) {
  const trimmed = path.replace(/\/+$/, '');
  return trimmed.slice(trimmed.lastIndexOf('/') + 1) || path;
}

/**
 * Gives the steps from a source down to a path, each with its name and whole path.
 *
 * @param {string} path
 * @param {string[]} sources of the snapshot; the longest that holds the path is the first step
 */
export function crumbs(path, sources) {
  const holds = (source) => path === source || path.startsWith(source.endsWith('/') ? source : `${source}/`);
  const source = sources.filter(holds).sort((a, b) => b.length - a.length)[0];
  if (source === undefined) return [{ name: path, path }];
  const rest = path.slice(source.length).split('/').filter((part) => part !== '');
  const found = [{ name: source, path: source }];
  let whole = source.replace(/\/$/, '');
  for (const part of rest) {
    whole = `${whole}/${part}`;
    found.push({ name: part, path: whole });
  }
  return found;
}

/** Makes a pattern of what somebody types to look for: what has no wildcard may stand anywhere in a name. */
export function pattern(text) {
  const trimmed = text.trim();
  return /[*?[\]]/.test(trimmed) ? trimmed : `*${trimmed}*`;
}

/** Tells whether a chosen path is below another that is chosen already. */
export function coveredBy(path, chosen) {
  return chosen.find((one) => one !== path && path.startsWith(one.endsWith('/') ? one : `${one}/`)) ?? null;
}
