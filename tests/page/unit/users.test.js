import assert from 'node:assert/strict';
import { test } from 'node:test';

import { match } from '../../../server/page/lib/route.js';
import { USER_KINDS, fromBytes, fromUser, isAdministrator, mistakes, toBody, toBytes } from '../../../server/page/lib/users.js';

test('only the administrator is one', () => {
  assert.equal(isAdministrator({ scope: 'admin', user: null }), true);
  assert.equal(isAdministrator({ scope: 'admin' }), true);
  assert.equal(isAdministrator({ scope: 'admin', user: 'ann' }), false);
  assert.equal(isAdministrator({ scope: 'operate', user: null }), false);
  assert.equal(isAdministrator(null), false);
});

test('sizes are read and written', () => {
  for (const [text, bytes] of [['500G', 500 * 2 ** 30], ['1.5 TiB', 1.5 * 2 ** 40], ['4096', 4096], ['10mb', 10 * 2 ** 20], ['0', 0]]) {
    assert.equal(toBytes(text), bytes, text);
  }
  for (const text of ['', 'x', '-1', '1X', '9999P9', '99999999P']) assert.equal(toBytes(text), null, text);
  for (const bytes of [0, 1, 1000, 1024, 500 * 2 ** 30]) assert.equal(toBytes(fromBytes(bytes)), bytes);
  assert.equal(fromBytes(500 * 2 ** 30), '500G');
});

test('a user goes through the form as they are', () => {
  const user = { paths: ['/srv/ann', '/home/ann'], kinds: ['folder', 's3'], commands: false, postgres: true, bytes_max: 2 ** 40, locations_max: null, jobs_max: 20, runs_max: 0 };
  assert.deepEqual(toBody(fromUser({ name: 'ann', ...user })), user);
  const none = toBody(fromUser());
  assert.deepEqual([none.paths, none.kinds, none.bytes_max, none.commands], [[], [], null, false]);
  // Whatever was ticked first.
  assert.deepEqual(toBody({ ...fromUser(), kinds: ['s3', 'folder'] }).kinds, ['folder', 's3']);
});

test('what makes no sense is said beside its field', () => {
  const good = { ...fromUser({ name: 'ann', kinds: ['s3'] }) };
  assert.deepEqual(mistakes(good), {});
  const wrong = mistakes({ ...good, name: 'Ann', kinds: [], paths: '/srv\n../x', bytes_max: 'much', jobs_max: '1.5' });
  assert.deepEqual(Object.keys(wrong).sort(), ['bytes_max', 'jobs_max', 'kinds', 'name', 'paths']);
  assert.match(wrong.paths, /\.\.\/x/);
  assert.ok(mistakes({ ...good, paths: '/a/../b' }).paths);
});

test('the views of users have addresses', () => {
  assert.equal(match('#/users').view, 'users');
  assert.deepEqual(match('#/users/ann').names, { user: 'ann' });
  assert.equal(match('#/new-user').names.user, undefined);
  assert.equal(new Set(USER_KINDS.map(([key]) => key)).size, 8);
});
