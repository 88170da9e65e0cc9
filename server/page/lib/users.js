/**
 * Users: what a form says of one, as the API takes it, and what can be said against that. Pure.
 */

/** The kinds of storage, as a user may be allowed them. */
export const USER_KINDS = [
  ['folder', 'Folders of this machine'],
  ['s3', 'S3 and compatibles'],
  ['gs', 'Google Cloud Storage'],
  ['az', 'Azure Blob Storage'],
  ['sftp', 'SSH'],
  ['ftp', 'FTP'],
  ['webdav', 'WebDAV'],
  ['dropbox', 'Dropbox'],
];

/** The limits that are whole numbers, with what they are of. */
export const COUNTS = [
  ['locations_max', 'Destinations at most'],
  ['jobs_max', 'Jobs at most'],
  ['runs_max', 'Runs at a time, at most'],
];

const UNITS = { K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40, P: 2 ** 50 };

/** Tells whether a session is that of the administrator of the service, and not that of a user. */
export function isAdministrator(session) {
  return session?.scope === 'admin' && (session.user ?? null) === null;
}

/** Reads a size such as 500G; null if it is none. */
export function toBytes(text) {
  const found = /^(\d+(?:\.\d+)?)\s*([KMGTP]?)(?:I?B)?$/.exec(text.trim().toUpperCase());
  if (!found) return null;
  const bytes = Math.round(Number(found[1]) * (UNITS[found[2]] ?? 1));
  return Number.isSafeInteger(bytes) ? bytes : null;
}

/** Writes bytes as `toBytes` reads them, in the largest unit that says them exactly. */
export function fromBytes(bytes) {
  const units = Object.entries(UNITS).reverse();
  const found = units.find(([, size]) => bytes > 0 && bytes % size === 0);
  return found ? `${bytes / found[1]}${found[0]}` : String(bytes);
}

/** Gives what the form of a user shows. */
export function fromUser(user = {}) {
  const text = (value) => (value === null || value === undefined ? '' : String(value));
  return {
    name: user.name ?? '',
    paths: (user.paths ?? []).join('\n'),
    kinds: [...(user.kinds ?? [])],
    commands: user.commands ?? false,
    postgres: user.postgres ?? false,
    bytes_max: user.bytes_max === null || user.bytes_max === undefined ? '' : fromBytes(user.bytes_max),
    ...Object.fromEntries(COUNTS.map(([key]) => [key, text(user[key])])),
  };
}

/** Says what is wrong in a form, by field. */
export function mistakes(values) {
  const found = {};
  if (!/^[a-z][a-z0-9_-]{0,31}$/.test(values.name)) found.name = 'A small letter first; then small letters, digits, - and _, 32 at most.';
  const wrong = lines(values.paths).find((path) => !path.startsWith('/') || path.split('/').includes('..'));
  if (wrong) found.paths = `${wrong} is no absolute path without “..”.`;
  if (values.kinds.length === 0) found.kinds = 'Choose at least one: without it nothing can be stored.';
  if (values.bytes_max.trim() !== '' && toBytes(values.bytes_max) === null) found.bytes_max = 'A size, such as 500G.';
  for (const [key] of COUNTS) {
    if (values[key].trim() !== '' && !/^\d{1,9}$/.test(values[key].trim())) found[key] = 'A whole number, or nothing for no such limit.';
  }
  return found;
}

/** Gives the body of the request that a form means. */
export function toBody(values) {
  const number = (text) => (text.trim() === '' ? null : Number(text.trim()));
  return {
    paths: lines(values.paths),
    kinds: USER_KINDS.map(([key]) => key).filter((key) => values.kinds.includes(key)),
    commands: values.commands,
    postgres: values.postgres,
    bytes_max: values.bytes_max.trim() === '' ? null : toBytes(values.bytes_max),
    ...Object.fromEntries(COUNTS.map(([key]) => [key, number(values[key])])),
  };
}

function lines(text) {
  return text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
}
