import assert from 'node:assert/strict';
import { statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { address, curl, example, fits, headings, kindOf, lines } from '../../../server/page/lib/openapi.js';

const PAGE = join(dirname(fileURLToPath(import.meta.url)), '../../../server/page');
const PAGE_BYTES_MAX = 150 * 1024;

const RUN = {
  type: 'object',
  required: ['id', 'outcome'],
  properties: {
    id: { type: 'string', description: 'Its id.' },
    outcome: { anyOf: [{ $ref: '#/components/schemas/Outcome' }, { type: 'null' }] },
    parts: { type: 'array', items: { $ref: '#/components/schemas/Run' } },
    made: { type: ['string', 'null'], format: 'date-time' },
  },
};
const BODY = { type: 'object', required: ['name'], properties: { name: { type: 'string' }, dry_run: { type: 'boolean', default: false } } };
const API = {
  paths: {
    '/runs/{id}': {
      get: { tags: ['runs'], summary: 'Show a run', 'x-larder-scope': 'read-only', parameters: [{ name: 'id', in: 'path', required: true }, { name: 'limit', in: 'query' }] },
      delete: { tags: ['runs'], summary: 'Remove it', parameters: [] },
    },
    '/jobs': { post: { tags: ['jobs'], summary: 'Add a job', parameters: [], requestBody: { content: { 'application/json': { schema: BODY } } } } },
    '/healthz': { get: { tags: ['jobs'], summary: 'Lives', security: [], parameters: [{ name: 'path', in: 'query', required: true }] } },
  },
  components: { schemas: { Run: RUN, Outcome: { oneOf: [{ const: 'success' }, { enum: ['failure', 'died'] }] } } },
};

test('operations stand under their headings, and are found by words', () => {
  const found = headings(API);
  assert.deepEqual([...found.keys()], ['jobs', 'runs']);
  const [show, remove] = found.get('runs');
  assert.deepEqual([show.method, remove.method], ['GET', 'DELETE']);
  assert.ok(fits(show, 'RUN show') && fits(show, 'read-only') && fits(show, '') && !fits(show, 'run remove'));
});

test('a schema becomes lines, also where it leads to itself', () => {
  const found = lines(API, { allOf: [{ $ref: '#/components/schemas/Run' }, { required: ['more'], properties: { more: { type: 'integer' } } }] });
  assert.deepEqual(
    found.filter(({ depth }) => depth === 0).map(({ name, kind, isNeeded }) => [name, kind, isNeeded]),
    [
      ['id', 'string', true],
      ['outcome', '"success" or "failure" or "died" or null', true],
      ['parts', 'list of object', false],
      ['made', 'time or null', false],
      ['more', 'integer', true],
    ],
  );
  assert.equal(found[0].about, 'Its id.');
  const page = lines(API, { properties: { items: { type: 'array', items: { $ref: '#/components/schemas/Run' } } } });
  assert.deepEqual(page.slice(0, 2).map(({ depth, name }) => [depth, name]), [[0, 'items'], [1, 'id']]);
  assert.ok(page.length < 20);
  assert.equal(kindOf(API, true), 'anything');
});

test('a call is worded with what it needs', () => {
  const operations = [...headings(API).values()].flat();
  const said = (method, path) => curl(API, operations.find((one) => one.method === method && one.path === path), 'http://h');
  assert.equal(said('GET', '/runs/{id}'), `curl -H "Authorization: Bearer $TOKEN" 'http://h/runs/{id}'`);
  assert.equal(said('DELETE', '/runs/{id}'), `curl -H "Authorization: Bearer $TOKEN" -X DELETE 'http://h/runs/{id}'`);
  assert.equal(said('POST', '/jobs'), `curl -H "Authorization: Bearer $TOKEN" -d '{"name":"..."}' 'http://h/jobs'`);
  assert.equal(said('GET', '/healthz'), `curl 'http://h/healthz?path=...'`);
  assert.deepEqual(example(API, BODY), { name: '...' });
});

test('what was entered comes into the address', () => {
  const [show] = headings(API).get('runs');
  assert.equal(address(show, { id: 'a/b', limit: '3' }), '/runs/a%2Fb?limit=3');
  assert.equal(address(show, { id: 'x', limit: '' }), '/runs/x');
});

test('the page of the API with all that it is made of is small', () => {
  const files = ['api.html', 'api.js', 'page.css', 'favicon.svg', 'lib/dom.js', 'lib/openapi.js', 'parts/marks.js', 'parts/page.js'];
  const size = files.reduce((sum, name) => sum + statSync(join(PAGE, name)).size, 0);
  assert.ok(size <= PAGE_BYTES_MAX / 2, `${size} bytes: the document comes to it`);
});
