/**
 * What can be said against the text of a field as it is typed. Pure: each gives the reason, or null.
 *
 * The server checks all of it again, and more; these are only there so that nobody has to wait for a plain mistake.
 */

const NAME_MAX = 64;

/** Refuses what cannot be the name of a destination or job. */
export function name(text) {
  if (text.length > NAME_MAX) return `At most ${NAME_MAX} characters.`;
  if (/^[A-Za-z0-9][A-Za-z0-9_.-]*$/.test(text)) return null;
  return 'Begin with a letter or digit; then letters, digits, “-”, “_” and “.” may follow, without spaces.';
}

/** Refuses what is no absolute path. */
export function absolutePath(text) {
  if (hasControl(text)) return 'There is a control character in it.';
  return text.startsWith('/') ? null : 'Write the whole path, from the / at its beginning.';
}

/** Refuses what cannot be the name or address of a server. */
export function host(text) {
  if (/:\/\//.test(text)) return 'Only the server’s name here, without ftp:// or the like.';
  if (text.includes('@')) return 'Only the server’s name here; the user has a field of its own.';
  if (text.includes('/')) return 'Only the server’s name here; the folder has a field of its own.';
  if (/^\[[0-9A-Fa-f:.]+\]$/.test(text)) return null;
  if (text.includes(':')) return 'Only the server’s name here; the port has a field of its own. An IPv6 address stands in [ ].';
  return /^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9.])?$/.test(text) ? null : 'This is no name or address of a server.';
}

/** Refuses what is no port. */
export function port(text) {
  const number = Number(text);
  return /^\d+$/.test(text) && number >= 1 && number <= 65_535 ? null : 'A port is a number from 1 to 65535.';
}

/** Refuses what is no http:// or https:// URL. */
export function webUrl(text) {
  if (!/^https?:\/\//i.test(text)) return 'Begin with https:// or http://.';
  if (!URL.canParse(text)) return 'This is no URL.';
  const url = new URL(text);
  if (url.password !== '') return 'A password does not belong into a URL: others see it in logs. It has a field of its own.';
  return null;
}

/**
 * Refuses what cannot be the name of a bucket or container.
 *
 * @param {string} text
 * @param {{what?: string, dots?: boolean, underscores?: boolean}} rules what it is called, and what else may stand in it
 */
export function bucket(text, { what = 'bucket', dots = true, underscores = false } = {}) {
  const most = underscores && text.includes('.') ? 222 : 63;
  if (text.includes('/')) return `Only the ${what}’s name here; the folder has a field of its own.`;
  if (text.length < 3 || text.length > most) return `The name of a ${what} has 3 to ${most} characters.`;
  const allowed = new RegExp(`^[a-z0-9${dots ? '.' : ''}${underscores ? '_' : ''}-]+$`);
  if (!allowed.test(text)) {
    const also = `${dots ? (underscores ? ', “.” and “_”' : ' and “.”') : ''}`;
    return `Only lower-case letters, digits, “-”${also} may stand in it.`;
  }
  if (!/^[a-z0-9]/.test(text) || !/[a-z0-9]$/.test(text)) return 'It has to begin and end with a letter or digit.';
  if (!dots && text.includes('--')) return 'Two “-” may not follow each other.';
  if (text.includes('..')) return 'Two “.” may not follow each other.';
  return /^\d{1,3}(\.\d{1,3}){3}$/.test(text) ? 'It looks like an IP address.' : null;
}

/** Refuses a folder within a bucket that has empty parts, or goes up. */
export function prefix(text) {
  const parts = text.replace(/^\/|\/$/g, '').split('/');
  if (parts.some((part) => part === '.' || part === '..')) return '“.” and “..” cannot be parts of it.';
  return parts.length > 1 && parts.includes('') ? 'Two “/” may not follow each other.' : null;
}

/** Refuses what is no JSON key of a Google service account. */
export function serviceAccount(text) {
  let key;
  try {
    key = JSON.parse(text);
  } catch {
    return 'This is no JSON. Paste the whole file that Google gave you, from { to }.';
  }
  if (key?.type !== 'service_account') return 'This is JSON, but no key of a service account: it has no "type": "service_account".';
  return key.private_key && key.client_email ? null : 'The key is not whole: private_key or client_email is missing.';
}

/** Refuses what is no certificate: PEM text, or the path of a file. */
export function certificate(text) {
  if (text.trim().startsWith('/') || text.trim().startsWith('~/')) return null;
  const isWhole = /-----BEGIN CERTIFICATE-----[\s\S]+-----END CERTIFICATE-----/.test(text);
  return isWhole ? null : 'Paste the certificate with its BEGIN and END lines, or write the path of a PEM file on the server.';
}

/** Refuses what is no duration, such as 90s, 5m, 1h 30m or 8h. */
export function duration(text) {
  return /^(\d+|\d+\s?(s|sec|m|min|h|d)(\s?\d+\s?(s|sec|m|min|h))*)$/.test(text.trim())
    ? null
    : 'Write it like 90s, 5m, 8h or 1h 30m.';
}

/** Refuses what is no size, such as 500M or 4G. */
export function size(text) {
  return /^\d+(\.\d+)?\s?([KMGTP](i?B)?|B)?$/i.test(text.trim()) ? null : 'Write it like 500M or 4G; units count by 1024.';
}

/** Refuses what cannot be backed up by its spelling: it is no absolute path, and no URL that is known. */
export function source(text) {
  if (hasControl(text)) return 'There is a control character in it.';
  const scheme = /^([a-z][a-z0-9+.-]*):\/\//i.exec(text)?.[1]?.toLowerCase();
  if (scheme === undefined) {
    return text.startsWith('/') || /^[A-Za-z0-9][A-Za-z0-9_.-]*$/.test(text)
      ? null
      : 'Write a whole path such as /home, a bucket such as s3://photos/2026, or a database such as postgres://me@localhost/shop.';
  }
  if (scheme === 'az') return 'Containers of Azure cannot be backed up as sources yet.';
  if (!['s3', 'gs', 'file', 'postgres', 'postgresql', 'postgres+basebackup'].includes(scheme)) {
    return `${scheme}:// cannot be backed up: folders, s3://, gs:// and postgres:// can.`;
  }
  return /:\/\/[^/@]*:[^/@]*@/.test(text) ? 'A password does not belong into a URL: others see it in logs.' : null;
}

/** Refuses two texts that should be the same. */
export function same(first, second) {
  return first === second ? null : 'The two are not the same.';
}

/** Gives what is weak about a password for a repository, or null; it is advice and refuses nothing. */
export function weakness(password) {
  if (password.length < 10) return 'Short. Four words at random are easy to keep and hard to guess.';
  return new Set(password).size < 5 ? 'It has few different characters.' : null;
}

function hasControl(text) {
  return /[\u0000-\u001f\u007f]/.test(text);
}
