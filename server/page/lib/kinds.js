/**
 * The kinds of storage: what each asks for, and how that becomes a location and comes back from one. Pure.
 *
 * A form's values are texts and flags by the key of their field. A field that is `inUrl` becomes a part of the location's
 * URL, one that is `asks` only decides what else is asked, and all others are settings of that name. Fields of the type
 * `secret` are sent and never come back. `when` names another field and the values with which this one is asked.
 */

import * as check from './check.js';

/**
 * @typedef {object} Field
 * @property {string} key
 * @property {string} label
 * @property {'text'|'secret'|'long'|'long-secret'|'flag'|'choice'} type
 * @property {string} [help] one sentence below the label
 * @property {string} [example] what stands in the empty field
 * @property {boolean} [required]
 * @property {boolean} [inUrl]
 * @property {boolean} [asks]
 * @property {boolean} [note] kept for people; nothing is done with it
 * @property {boolean} [more] seldom needed, so it is behind "More settings"
 * @property {Array<[string, string]>} [options] value and label of each choice, the first being the usual one
 * @property {[string, string[]]} [when]
 * @property {(text: string) => string|null} [check]
 */

const more = (field) => ({ type: 'text', more: true, ...field });

const CERTIFICATE = more({
  key: 'ca-certificate',
  label: 'Certificate',
  type: 'long',
  help: 'Only for a server whose certificate no public authority signed: the PEM text, or its path on the machine that runs Larder.',
  example: '-----BEGIN CERTIFICATE-----',
  check: check.certificate,
});
const CONNECTIONS = more({
  key: 'connections',
  label: 'Connections at once',
  help: 'Eight, unless the server allows fewer.',
  example: '8',
  check: (text) => (/^[1-9]\d{0,3}$/.test(text) ? null : 'Write a whole number from 1 on.'),
});
const LIMITS = [
  more({
    key: 'upload-limit',
    label: 'Upload limit',
    help: 'Bytes a second, also by the hour.',
    example: 'off,2M@08:00-18:00',
  }),
  more({ key: 'download-limit', label: 'Download limit', help: 'Bytes a second, also by the hour.', example: '20M' }),
];
const NETWORK = [CONNECTIONS, ...LIMITS];

const PREFIX = {
  key: 'prefix',
  label: 'Folder in it',
  type: 'text',
  inUrl: true,
  help: 'Keeps the repository apart from what else is there. It need not exist.',
  example: 'larder',
  check: check.prefix,
};

/** The kinds, in the order in which they are offered. */
export const KINDS = [
  {
    id: 'folder',
    schemes: ['file'],
    title: 'Folder',
    about: 'A disk of the machine that runs Larder, or one mounted on it',
    fields: [
      {
        key: 'path',
        label: 'Folder',
        type: 'text',
        inUrl: true,
        required: true,
        help: 'On another disk than what is backed up: one that dies takes both.',
        example: '/mnt/backup/larder',
        check: check.absolutePath,
      },
    ],
  },
  {
    id: 's3',
    schemes: ['s3'],
    title: 'S3 and compatibles',
    about: 'AWS, MinIO, Ceph, Cloudflare R2, Wasabi, Backblaze and others',
    fields: [
      {
        key: 'bucket',
        label: 'Bucket',
        type: 'text',
        inUrl: true,
        required: true,
        help: 'Make it first; Larder makes none.',
        example: 'my-backups',
        check: (text) => check.bucket(text),
      },
      PREFIX,
      {
        key: 'endpoint',
        label: 'URL of the service',
        type: 'text',
        help: 'Leave it empty for AWS.',
        example: 'https://minio.example:9000',
        check: check.webUrl,
      },
      { key: 'region', label: 'Region', type: 'text', help: 'us-east-1 where nothing is said.', example: 'eu-central-1' },
      {
        key: 'login',
        label: 'Log in with',
        type: 'choice',
        asks: true,
        options: [
          ['keys', 'An access key'],
          ['role', 'An access key and a role'],
          ['machine', 'What the machine has: its own role, or AWS’s files and variables'],
        ],
      },
      {
        key: 'access-key-id',
        label: 'Access key',
        type: 'text',
        required: true,
        example: 'AKIAIOSFODNN7EXAMPLE',
        when: ['login', ['keys', 'role']],
      },
      { key: 'secret-access-key', label: 'Secret key', type: 'secret', required: true, when: ['login', ['keys', 'role']] },
      {
        key: 'role-arn',
        label: 'Role',
        type: 'text',
        required: true,
        example: 'arn:aws:iam::123456789012:role/backup',
        when: ['login', ['role']],
        check: (text) => (text.startsWith('arn:') ? null : 'A role begins with arn:.'),
      },
      { key: 'external-id', label: 'External id', type: 'text', help: 'If the role asks for one.', when: ['login', ['role']] },
      {
        key: 'path-style',
        label: 'Path style',
        type: 'choice',
        more: true,
        help: 'Whether the bucket stands in the path of a URL or in the host’s name.',
        options: [
          ['', 'As it is usual: in the path for a URL of one’s own'],
          ['true', 'Force path style'],
          ['false', 'In the host’s name'],
        ],
      },
      more({ key: 'storage-class', label: 'Storage class', help: 'Of the data; all else stays in the bucket’s own.', example: 'STANDARD_IA' }),
      CERTIFICATE,
      {
        key: 'allow-http',
        label: 'Allow a URL without TLS on another machine',
        type: 'flag',
        more: true,
        help: 'Whoever is on the way can then see which objects there are. What is in them stays encrypted.',
      },
      ...NETWORK,
    ],
  },
  {
    id: 'google',
    schemes: ['gs'],
    title: 'Google Cloud Storage',
    about: 'A bucket, and the key of a service account',
    fields: [
      {
        key: 'bucket',
        label: 'Bucket',
        type: 'text',
        inUrl: true,
        required: true,
        help: 'Make it first, with uniform access and no retention policy.',
        example: 'my-backups',
        check: (text) => check.bucket(text, { underscores: true }),
      },
      PREFIX,
      {
        key: 'service-account-key',
        label: 'JSON credentials',
        type: 'long-secret',
        help: 'The key of a service account with the role Storage Object User on the bucket. Empty: the machine’s own account.',
        example: '{ "type": "service_account", …',
        check: check.serviceAccount,
      },
      more({ key: 'storage-class', label: 'Storage class', help: 'Of the data; all else stays in the bucket’s own.', example: 'NEARLINE' }),
      more({ key: 'endpoint', label: 'URL of the service', help: 'Only for others than Google itself.', check: check.webUrl }),
      CERTIFICATE,
      ...NETWORK,
    ],
  },
  {
    id: 'azure',
    schemes: ['az'],
    title: 'Azure Blob Storage',
    about: 'A container of a storage account',
    fields: [
      {
        key: 'bucket',
        label: 'Container',
        type: 'text',
        inUrl: true,
        required: true,
        help: 'Make it first; Larder makes none.',
        example: 'backups',
        check: (text) => check.bucket(text, { what: 'container', dots: false }),
      },
      PREFIX,
      { key: 'account', label: 'Storage account', type: 'text', required: true, example: 'mystorage' },
      {
        key: 'login',
        label: 'Log in with',
        type: 'choice',
        asks: true,
        options: [
          ['client', 'An application: tenant, client and its secret'],
          ['key', 'The key of the account'],
          ['sas', 'A shared access signature'],
          ['machine', 'The identity of the machine'],
        ],
      },
      { key: 'tenant-id', label: 'Tenant', type: 'text', required: true, when: ['login', ['client']] },
      { key: 'client-id', label: 'Client id', type: 'text', required: true, when: ['login', ['client']] },
      { key: 'client-secret', label: 'Client secret', type: 'secret', required: true, when: ['login', ['client']] },
      { key: 'access-key', label: 'Account key', type: 'secret', required: true, when: ['login', ['key']] },
      { key: 'sas-token', label: 'Signature', type: 'secret', required: true, when: ['login', ['sas']] },
      more({ key: 'subscription', label: 'Subscription', note: true, help: 'A note for people.' }),
      more({ key: 'resource-group', label: 'Resource group', note: true, help: 'A note for people.' }),
      more({ key: 'sku', label: 'SKU', note: true, help: 'A note for people.', example: 'Standard_LRS' }),
      {
        key: 'access-tier',
        label: 'Access tier',
        type: 'choice',
        more: true,
        options: [['', 'The account’s own'], ['Hot', 'Hot'], ['Cool', 'Cool'], ['Cold', 'Cold'], ['Archive', 'Archive']],
      },
      more({ key: 'endpoint', label: 'URL of the account', help: 'Only for others than Azure itself.', check: check.webUrl }),
      CERTIFICATE,
      ...NETWORK,
    ],
  },
  {
    id: 'sftp',
    schemes: ['sftp'],
    title: 'SSH',
    about: 'Any machine that ssh or sftp reaches',
    fields: [
      { key: 'host', label: 'Server', type: 'text', inUrl: true, required: true, example: 'nas.example', check: check.host },
      { key: 'port', label: 'Port', type: 'text', inUrl: true, example: '22', check: check.port },
      {
        key: 'path',
        label: 'Folder',
        type: 'text',
        inUrl: true,
        required: true,
        help: 'The whole path on the server, or ~/larder in the user’s home folder.',
        example: '/srv/larder',
        check: (text) => (text.startsWith('/') || /^~(\/|$)/.test(text) ? null : 'Begin with / or ~/.'),
      },
      { key: 'user', label: 'User', type: 'text', inUrl: true, required: true, example: 'backup' },
      {
        key: 'login',
        label: 'Log in with',
        type: 'choice',
        asks: true,
        options: [
          ['password', 'A password'],
          ['identity', 'An identity file (private key)'],
          ['machine', 'The SSH agent and the usual keys of the user that runs Larder'],
        ],
      },
      { key: 'password', label: 'Password', type: 'secret', required: true, when: ['login', ['password']] },
      {
        key: 'identity-file',
        label: 'Identity file',
        type: 'text',
        required: true,
        help: 'Its path on the machine that runs Larder.',
        example: '~/.ssh/id_ed25519',
        when: ['login', ['identity']],
        check: (text) => (/^(\/|~\/)/.test(text) ? null : 'Begin with / or ~/.'),
      },
      {
        key: 'identity-passphrase',
        label: 'Its passphrase',
        type: 'secret',
        help: 'Empty if it has none.',
        when: ['login', ['identity']],
      },
      {
        key: 'host-key-checking',
        label: 'A server that was never seen before',
        type: 'choice',
        help: 'One whose key has changed is refused in any case.',
        options: [
          ['', 'Is refused: log in once with ssh and compare its fingerprint'],
          ['accept-new', 'Is remembered at the first log-in'],
        ],
      },
      more({ key: 'known-hosts', label: 'File of known servers', example: '~/.ssh/known_hosts' }),
      ...NETWORK,
    ],
  },
  {
    id: 'ftp',
    schemes: ['ftp', 'ftps'],
    title: 'FTP',
    about: 'Web space, routers, backup space of hosters',
    fields: [
      { key: 'host', label: 'Server', type: 'text', inUrl: true, required: true, example: 'ftp.example', check: check.host },
      {
        key: 'path',
        label: 'Directory',
        type: 'text',
        inUrl: true,
        help: 'From the folder that the log-in leads to, or a whole path from / on.',
        example: 'larder',
        check: check.prefix,
      },
      { key: 'user', label: 'User', type: 'text', inUrl: true, help: 'Empty: anonymous.', example: 'backup' },
      { key: 'password', label: 'Password', type: 'secret' },
      {
        key: 'scheme',
        label: 'Encryption on the way',
        type: 'choice',
        inUrl: true,
        help: 'Without TLS whoever is on the way can read the password. The repository is encrypted in any case.',
        options: [['ftps', 'TLS (FTPS)'], ['ftp', 'None']],
      },
      { key: 'port', label: 'Port', type: 'text', inUrl: true, more: true, example: '21', check: check.port },
      CERTIFICATE,
      ...NETWORK,
    ],
  },
  {
    id: 'webdav',
    schemes: ['webdav', 'webdavs'],
    title: 'WebDAV',
    about: 'Nextcloud, ownCloud, rented storage boxes',
    fields: [
      {
        key: 'address',
        label: 'URL',
        type: 'text',
        inUrl: true,
        required: true,
        help: 'As the server’s operator gives it, with the folder for the repository at its end.',
        example: 'https://cloud.example/remote.php/dav/files/anna/Backup',
        check: check.webUrl,
      },
      {
        key: 'login',
        label: 'Log in with',
        type: 'choice',
        asks: true,
        options: [['password', 'User and password'], ['token', 'A bearer token'], ['none', 'Nothing']],
      },
      { key: 'user', label: 'User', type: 'text', required: true, when: ['login', ['password']] },
      {
        key: 'password',
        label: 'Password',
        type: 'secret',
        required: true,
        help: 'Nextcloud: an app password, from Personal settings, Security.',
        when: ['login', ['password']],
      },
      { key: 'token', label: 'Token', type: 'secret', required: true, when: ['login', ['token']] },
      {
        key: 'allow-http',
        label: 'Allow http:// to another machine',
        type: 'flag',
        more: true,
        help: 'Whoever is on the way can then read the password.',
      },
      CERTIFICATE,
      ...NETWORK,
    ],
  },
  {
    id: 'dropbox',
    schemes: ['dropbox'],
    title: 'Dropbox',
    about: 'A folder of your Dropbox, by an app of your own',
    fields: [
      {
        key: 'path',
        label: 'Folder',
        type: 'text',
        inUrl: true,
        required: true,
        help: 'Within the app’s own folder, or within all of your Dropbox, as the app may see.',
        example: 'larder',
        check: check.prefix,
      },
      { key: 'app-key', label: 'App key', type: 'text', required: true, example: 'abcdefghijklmno' },
      { key: 'app-secret', label: 'App secret', type: 'secret', help: 'Empty for an app without one (PKCE).' },
      { key: 'refresh-token', label: 'Refresh token', type: 'secret', required: true },
      CERTIFICATE,
      ...NETWORK,
    ],
  },
];

/** Gives a kind by its id. */
export function kindById(id) {
  return KINDS.find((kind) => kind.id === id) ?? KINDS[0];
}

/** Gives the kind that a URL is of. */
export function kindOf(url) {
  const scheme = /^([a-z0-9+.-]+):\/\//i.exec(url)?.[1]?.toLowerCase() ?? 'file';
  return KINDS.find((kind) => kind.schemes.includes(scheme)) ?? null;
}

/** Tells whether a field is asked, with what the others say. */
export function isAsked(field, values) {
  if (!field.when) return true;
  const [key, allowed] = field.when;
  return allowed.includes(values[key]);
}

/** Gives the values of an empty form: the first choice of each field that has some. */
export function emptyValues(kind) {
  const initial = (field) => {
    if (field.type === 'flag') return false;
    return field.type === 'choice' ? field.options[0][0] : '';
  };
  return Object.fromEntries(kind.fields.map((field) => [field.key, initial(field)]));
}

/**
 * Gives the reason against each field that is wrong.
 *
 * @param {string[]} kept keys of secrets that the server has already; an empty field leaves these as they are
 */
export function mistakes(kind, values, kept = []) {
  const found = {};
  for (const field of kind.fields.filter((field) => isAsked(field, values))) {
    const why = refuse(field, values[field.key], kept);
    if (why) found[field.key] = why;
  }
  return found;
}

/** Gives the reason against the value of one field, or null. */
export function refuse(field, value, kept = []) {
  if (field.type === 'flag' || field.type === 'choice') return null;
  const text = String(value ?? '');
  if (text.trim() === '') {
    return field.required && !kept.includes(field.key) ? `${field.label} is needed.` : null;
  }
  return field.check ? field.check(text.trim()) : null;
}

/**
 * Makes a location of a form's values.
 *
 * @returns {{url: string, settings: Object<string, string>, secrets: Object<string, string>, notes: Object<string, string>, unset: string[]}}
 *   `unset` are the settings that this form knows and that are not said any more; secrets that were left empty are not among
 *   them as long as they are asked.
 */
export function toLocation(kind, values) {
  const location = { url: toUrl(kind, values), settings: {}, secrets: {}, notes: {}, unset: [] };
  for (const field of kind.fields.filter((field) => !field.inUrl && !field.asks)) {
    const value = field.type === 'flag' ? (values[field.key] ? 'true' : '') : String(values[field.key] ?? '');
    const text = isSecret(field) ? value : value.trim();
    const asked = isAsked(field, values);
    if (field.note) {
      if (text) location.notes[field.key] = text;
    } else if (asked && text !== '') {
      (isSecret(field) ? location.secrets : location.settings)[field.key] = text;
    } else if (!asked || !isSecret(field)) {
      location.unset.push(field.key);
    }
  }
  if (kind.id === 'azure') {
    // The identity of the machine is a setting, and no secret.
    if (values.login === 'machine') location.settings['managed-identity'] = 'true';
    else location.unset.push('managed-identity');
  }
  return location;
}

/** Tells whether a field holds a secret. */
export function isSecret(field) {
  return field.type === 'secret' || field.type === 'long-secret';
}

/** Makes the URL of a form's values. */
export function toUrl(kind, values) {
  const text = (key) => String(values[key] ?? '').trim();
  const user = text('user') ? `${encodeURIComponent(text('user'))}@` : '';
  const port = text('port') ? `:${text('port')}` : '';
  switch (kind.id) {
    case 'folder':
      return text('path');
    case 's3':
    case 'google':
    case 'azure':
      return joined(`${kind.schemes[0]}://${text('bucket')}`, text('prefix').replace(/^\/|\/$/g, ''));
    case 'sftp':
      return `sftp://${user}${text('host')}${port}${escaped(text('path').replace(/^~/, '/~'))}`;
    case 'ftp':
      return joined(`${text('scheme')}://${user}${text('host')}${port}`, escaped(text('path').replace(/\/$/, '')));
    case 'webdav':
      return text('address').replace(/^http/i, 'webdav').replace(/\/$/, '');
    default:
      return `dropbox:///${escaped(text('path').replace(/^\/|\/$/g, ''))}`;
  }
}

function joined(start, path) {
  return path === '' ? start : `${start}/${path}`;
}

function escaped(path) {
  return path.split('/').map(encodeURIComponent).join('/');
}

/**
 * Makes a form's values of a location.
 *
 * @param {{url: string, settings?: Object<string, string>, notes?: Object<string, string>}} location
 * @param {string[]} kept keys of the secrets that the server has
 */
export function fromLocation(location, kept = []) {
  const kind = kindOf(location.url) ?? kindById('folder');
  const settings = location.settings ?? {};
  const values = { ...emptyValues(kind), ...fromUrl(kind, location.url) };
  for (const field of kind.fields.filter((field) => !field.inUrl && !field.asks)) {
    const from = field.note ? (location.notes ?? {}) : settings;
    if (isSecret(field) || from[field.key] === undefined) continue;
    values[field.key] = field.type === 'flag' ? String(from[field.key]) === 'true' : String(from[field.key]);
  }
  const login = loginOf(kind, settings, kept);
  return { kind, values: login ? { ...values, login } : values };
}

function fromUrl(kind, url) {
  const rest = url.replace(/^[a-z0-9+.-]+:\/\//i, '');
  switch (kind.id) {
    case 'folder':
      return { path: url.startsWith('file://') ? decodeURIComponent(rest) : url };
    case 's3':
    case 'google':
    case 'azure': {
      const [bucket, ...prefix] = rest.split('/');
      return { bucket, prefix: prefix.join('/') };
    }
    case 'webdav':
      return fromDav(url);
    case 'dropbox':
      return { path: decodeURIComponent(rest.replace(/^\//, '')) };
    default:
      return fromServer(kind, url, rest);
  }
}

function fromServer(kind, url, rest) {
  const found = /^(?:([^@/]*)@)?(\[[^\]]*\]|[^/:]*)(?::(\d+))?(?:\/(.*))?$/.exec(rest) ?? [];
  const [, user = '', host = '', port = '', below = ''] = found;
  const path = decodeURIComponent(below);
  const common = { user: decodeURIComponent(user), host, port };
  if (kind.id === 'ftp') return { ...common, path, scheme: url.split(':')[0].toLowerCase() };
  return { ...common, path: path.startsWith('~') ? path : `/${path}` };
}

/** A user in the URL has a field of its own in the form. */
function fromDav(url) {
  const address = url.replace(/^webdav/i, 'http');
  const user = /^https?:\/\/([^@/]*)@/i.exec(address)?.[1];
  if (user === undefined) return { address };
  return { address: address.replace(`${user}@`, ''), user: decodeURIComponent(user) };
}

function loginOf(kind, settings, kept) {
  const has = (key) => settings[key] !== undefined || kept.includes(key);
  switch (kind.id) {
    case 's3':
      if (!has('access-key-id')) return 'machine';
      return has('role-arn') ? 'role' : 'keys';
    case 'azure':
      if (has('access-key')) return 'key';
      if (has('sas-token')) return 'sas';
      return has('client-secret') || has('tenant-id') ? 'client' : 'machine';
    case 'sftp':
      if (has('identity-file')) return 'identity';
      return has('password') ? 'password' : 'machine';
    case 'webdav':
      if (has('token')) return 'token';
      return has('password') ? 'password' : 'none';
    default:
      return null;
  }
}

/** Gives the address at which a Dropbox app is allowed to see its folder, for its key. */
export function dropboxAddress(appKey) {
  const query = new URLSearchParams({ client_id: appKey, response_type: 'code', token_access_type: 'offline' });
  return `https://www.dropbox.com/oauth2/authorize?${query}`;
}
