import assert from 'node:assert/strict';
import { test } from 'node:test';

import * as check from '../../../server/page/lib/check.js';

/** Asserts what a check takes, and what it refuses with which words. */
function judged(refuse, taken, refused) {
  for (const text of taken) assert.equal(refuse(text), null, text);
  for (const [text, why] of refused) assert.match(refuse(text) ?? 'taken', why, text);
}

test('names', () => {
  judged(check.name, ['nas', 'Nas-2.a_b', '0'], [['a b', /without spaces/], ['-a', /Begin with/], ['ä', /Begin with/], ['a'.repeat(65), /64/]]);
});

test('paths', () => {
  judged(check.absolutePath, ['/', '/a b'], [['a', /whole path/], ['~/a', /whole path/], ['/a\nb', /control/]]);
});

test('hosts', () => {
  judged(check.host, ['nas', 'nas.example', '10.0.0.1', '[::1]', 'a-b_c.example.'], [['ftp://nas', /without ftp/], ['me@nas', /user has a field/], ['nas/x', /folder has a field/], ['nas:21', /port has a field/], ['na s', /no name/]]);
});

test('ports', () => {
  judged(check.port, ['1', '22', '65535'], [['0', /1 to 65535/], ['65536', /1 to/], ['x', /1 to/], ['2 2', /1 to/]]);
});

test('URLs have no password in them', () => {
  judged(check.webUrl, ['https://a', 'http://127.0.0.1:9000/x'], [['ftp://a', /Begin with/], ['https://', /no URL/], ['https://me:pw@a', /does not belong/]]);
});

test('buckets and containers', () => {
  judged(check.bucket, ['my-backups', 'a.b.c', '123'], [['ab', /3 to 63/], ['My-backups', /lower-case/], ['a_b', /lower-case/], ['a/b', /folder has a field/], ['-abc', /begin and end/], ['a..b', /Two/], ['10.0.0.1', /IP address/]]);
  assert.equal(check.bucket('a_b', { underscores: true }), null);
  assert.match(check.bucket('a--b', { what: 'container', dots: false }), /Two “-”/);
  assert.match(check.bucket('a.bc', { what: 'container', dots: false }), /lower-case letters, digits, “-” may/);
});

test('folders in buckets', () => {
  judged(check.prefix, ['', 'a', 'a/b/', '/a'], [['a//b', /Two/], ['a/../b', /cannot be parts/]]);
});

test('keys of service accounts', () => {
  const key = { type: 'service_account', private_key: 'k', client_email: 'e' };
  judged(check.serviceAccount, [JSON.stringify(key)], [['{', /no JSON/], ['{"type":"user"}', /no key of a service account/], [JSON.stringify({ ...key, private_key: undefined }), /not whole/]]);
});

test('certificates', () => {
  const pem = '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n';
  judged(check.certificate, [pem, '/etc/ssl/ca.pem', '~/ca.pem'], [['MIIB', /BEGIN and END/], ['-----BEGIN CERTIFICATE-----', /BEGIN and END/]]);
});

test('durations and sizes', () => {
  judged(check.duration, ['90', '90s', '5m', '1h 30m', '8h', '2d'], [['soon', /like 90s/], ['-5m', /like/], ['1.5h', /like/]]);
  judged(check.size, ['4G', '500M', '1024', '1.5 GiB', '10KB'], [['big', /like 500M/], ['4X', /like/]]);
});

test('sources', () => {
  judged(
    check.source,
    ['/home', 's3://photos/2026', 'gs://x', 'postgres://me@localhost/shop', 'postgres+basebackup://r@h', 'my-bucket-location'],
    [['home/me', /whole path/], ['az://c/x', /Azure/], ['ftp://h/x', /cannot be backed up/], ['postgres://me:pw@h/db', /password does not belong/]],
  );
});

test('passwords', () => {
  assert.equal(check.same('a', 'a'), null);
  assert.match(check.same('a', 'b'), /not the same/);
  assert.match(check.weakness('short'), /Short/);
  assert.match(check.weakness('aaaaaaaaaaaa'), /few different/);
  assert.equal(check.weakness('correct horse battery staple'), null);
});
