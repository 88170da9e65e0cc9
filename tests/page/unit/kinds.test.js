import assert from 'node:assert/strict';
import { test } from 'node:test';

import { KINDS, dropboxAddress, emptyValues, fromLocation, isAsked, kindById, kindOf, mistakes, toLocation, toUrl } from '../../../server/page/lib/kinds.js';

const filled = (id, values) => ({ ...emptyValues(kindById(id)), ...values });
const url = (id, values) => toUrl(kindById(id), filled(id, values));

test('the URL of each kind is as larder writes it', () => {
  const cases = [
    ['folder', { path: '/mnt/backup' }, '/mnt/backup'],
    ['s3', { bucket: 'photos', prefix: '/a/b/' }, 's3://photos/a/b'],
    ['s3', { bucket: 'photos' }, 's3://photos'],
    ['google', { bucket: 'photos', prefix: 'x' }, 'gs://photos/x'],
    ['azure', { bucket: 'photos', prefix: 'x' }, 'az://photos/x'],
    ['sftp', { host: 'nas', path: '/srv/r', user: 'me' }, 'sftp://me@nas/srv/r'],
    ['sftp', { host: 'nas', port: '2222', path: '~/r', user: 'a@b' }, 'sftp://a%40b@nas:2222/~/r'],
    ['ftp', { host: 'f', path: 'a b', user: 'me', scheme: 'ftp' }, 'ftp://me@f/a%20b'],
    ['ftp', { host: 'f', path: '/srv/r' }, 'ftps://f//srv/r'],
    ['ftp', { host: 'f' }, 'ftps://f'],
    ['webdav', { address: 'https://cloud/dav/x/' }, 'webdavs://cloud/dav/x'],
    ['webdav', { address: 'http://127.0.0.1:80/x' }, 'webdav://127.0.0.1:80/x'],
    ['dropbox', { path: '/larder é' }, 'dropbox:///larder%20%C3%A9'],
  ];
  for (const [id, values, expected] of cases) assert.equal(url(id, values), expected);
});

test('a location becomes the same form again', () => {
  const cases = [
    ['folder', { path: '/mnt/a b' }, []],
    ['s3', { bucket: 'photos', prefix: 'a/b', endpoint: 'https://minio:9000', login: 'role', 'access-key-id': 'K', 'role-arn': 'arn:x', 'path-style': 'true', 'allow-http': true }, ['secret-access-key']],
    ['s3', { bucket: 'photos', login: 'machine' }, []],
    ['google', { bucket: 'photos', prefix: 'x', 'storage-class': 'NEARLINE' }, ['service-account-key']],
    ['azure', { bucket: 'photos', account: 'a', login: 'key' }, ['access-key']],
    ['azure', { bucket: 'photos', account: 'a', login: 'machine' }, []],
    ['sftp', { host: 'nas', port: '22', path: '~/r', user: 'a@b', login: 'identity', 'identity-file': '~/.ssh/k' }, ['identity-passphrase']],
    ['sftp', { host: '[::1]', path: '/srv/r ü', user: 'me', login: 'password' }, ['password']],
    ['ftp', { host: 'f', path: '/srv/r', user: 'me', scheme: 'ftp', port: '2121' }, ['password']],
    ['webdav', { address: 'https://cloud:8443/dav/x', login: 'password', user: 'anna' }, ['password']],
    ['webdav', { address: 'https://cloud/dav/x', login: 'token' }, ['token']],
    ['dropbox', { path: 'larder é', 'app-key': 'k' }, ['refresh-token']],
  ];
  for (const [id, values, kept] of cases) {
    const before = filled(id, values);
    const { url: made, settings } = toLocation(kindById(id), before);
    const again = fromLocation({ url: made, settings }, kept);
    assert.equal(again.kind.id, id);
    assert.deepEqual(again.values, before, made);
  }
});

test('a user in the URL of a WebDAV server goes into its field', () => {
  const { values } = fromLocation({ url: 'webdavs://anna@cloud/dav', settings: {} }, ['password']);
  assert.equal(values.address, 'https://cloud/dav');
  assert.equal(values.user, 'anna');
});

test('secrets are apart from settings, and those of a way to log in that was given up are unset', () => {
  const made = toLocation(kindById('azure'), filled('azure', { bucket: 'b', account: 'a', login: 'client', 'tenant-id': 't', 'client-id': 'c', 'client-secret': ' s ', 'access-key': 'old' }));
  assert.deepEqual(made.settings, { account: 'a', 'tenant-id': 't', 'client-id': 'c' });
  assert.deepEqual(made.secrets, { 'client-secret': ' s ' });
  assert.ok(made.unset.includes('access-key'));
  assert.ok(made.unset.includes('managed-identity'));
  assert.ok(!made.unset.includes('client-secret'));
});

test('an empty secret that is still asked for is kept', () => {
  const made = toLocation(kindById('ftp'), filled('ftp', { host: 'f', user: 'me' }));
  assert.deepEqual(made.secrets, {});
  assert.ok(!made.unset.includes('password'));
});

test('the identity of the machine is a setting', () => {
  const made = toLocation(kindById('azure'), filled('azure', { bucket: 'b', account: 'a', login: 'machine' }));
  assert.equal(made.settings['managed-identity'], 'true');
});

test('notes are neither settings nor secrets', () => {
  const made = toLocation(kindById('azure'), filled('azure', { bucket: 'b', account: 'a', sku: 'Standard_LRS' }));
  assert.deepEqual(made.notes, { sku: 'Standard_LRS' });
  assert.equal(made.settings.sku, undefined);
});

test('what is needed and missing is named, and only what is asked', () => {
  const ftp = mistakes(kindById('ftp'), filled('ftp', {}));
  assert.deepEqual(Object.keys(ftp), ['host']);
  const s3 = mistakes(kindById('s3'), filled('s3', { bucket: 'photos', login: 'keys' }));
  assert.deepEqual(Object.keys(s3), ['access-key-id', 'secret-access-key']);
  assert.deepEqual(mistakes(kindById('s3'), filled('s3', { bucket: 'photos', login: 'machine' })), {});
  assert.deepEqual(mistakes(kindById('s3'), filled('s3', { bucket: 'photos', 'access-key-id': 'K' }), ['secret-access-key']), {});
});

test('each kind asks for what the product promises', () => {
  const promised = {
    ftp: ['host', 'path', 'user', 'password'],
    s3: ['ca-certificate', 'bucket', 'region', 'endpoint', 'path-style', 'storage-class', 'access-key-id', 'secret-access-key', 'role-arn'],
    google: ['bucket', 'service-account-key'],
    azure: ['bucket', 'account', 'tenant-id', 'client-id', 'client-secret', 'subscription', 'resource-group', 'sku'],
    sftp: ['host', 'port', 'path', 'user', 'password', 'identity-file', 'identity-passphrase'],
    webdav: ['address', 'user', 'password'],
    dropbox: ['app-key', 'app-secret', 'refresh-token', 'path'],
    folder: ['path'],
  };
  for (const [id, keys] of Object.entries(promised)) {
    const asked = kindById(id).fields.map(({ key }) => key);
    for (const key of keys) assert.ok(asked.includes(key), `${id} asks for ${key}`);
  }
  assert.equal(KINDS.length, Object.keys(promised).length);
});

test('a field is asked only with the choice that needs it', () => {
  const field = kindById('sftp').fields.find(({ key }) => key === 'identity-file');
  assert.equal(isAsked(field, { login: 'identity' }), true);
  assert.equal(isAsked(field, { login: 'password' }), false);
});

test('the kind of a URL is told by its scheme', () => {
  assert.equal(kindOf('/srv').id, 'folder');
  assert.equal(kindOf('file:///srv').id, 'folder');
  assert.equal(kindOf('FTPS://x').id, 'ftp');
  assert.equal(kindOf('nfs://x'), null);
});

test('the address at Dropbox asks for a token that lasts', () => {
  const address = new URL(dropboxAddress('k&y'));
  assert.equal(address.searchParams.get('client_id'), 'k&y');
  assert.equal(address.searchParams.get('token_access_type'), 'offline');
});
