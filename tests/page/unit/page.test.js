import assert from 'node:assert/strict';
import { readFileSync, readdirSync, statSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { areaPath, byteTicks, placed, spans, stepPath } from '../../../server/page/lib/chart.js';
import { baseName, coveredBy, crumbs, pattern } from '../../../server/page/lib/paths.js';
import { rateOf, sampled, shareDone } from '../../../server/page/lib/progress.js';
import { ROUTES, match, to } from '../../../server/page/lib/route.js';

const PAGE = join(dirname(fileURLToPath(import.meta.url)), '../../../server/page');
const PAGE_BYTES_MAX = 150 * 1024;

test('addresses lead to views, with names of any characters', () => {
  assert.deepEqual(match(''), { view: 'health', names: {}, query: {} });
  assert.deepEqual(match('#/'), { view: 'health', names: {}, query: {} });
  assert.deepEqual(match('#/jobs/a%2Fb'), { view: 'job', names: { name: 'a/b' }, query: {} });
  assert.equal(match('#/jobs/'), null);
  assert.equal(match('#/nothing'), null);
  const path = '/home/ä b?&#%';
  assert.deepEqual(match(to(['snapshots', 'nas', 'latest'], { path, tag: '' })), { view: 'browse', names: { location: 'nas', id: 'latest' }, query: { path } });
});

test('every view that an address names is there', () => {
  const views = readdirSync(join(PAGE, 'views'));
  for (const [, view] of ROUTES) assert.ok(views.includes(`${view}.js`), view);
});

test('the rate is that of late, and of one phase', () => {
  const status = (seconds, bytes, phase = 'reading') => ({ phase, seconds_elapsed: seconds, bytes_done: bytes });
  let samples = [];
  assert.equal(rateOf(samples), null);
  for (const [seconds, bytes] of [[0, 0], [10, 1000], [15, 1500], [20, 5000]]) samples = sampled(samples, status(seconds, bytes));
  assert.equal(rateOf(samples), 400);
  samples = sampled(samples, status(21, 0, 'checking'));
  assert.equal(rateOf(samples), null);
});

test('the share of a phase is told by bytes, else by items', () => {
  assert.equal(shareDone({ bytes_done: 5, bytes_total: 10, items_done: 0, items_total: 10 }), 0.5);
  assert.equal(shareDone({ bytes_done: 0, bytes_total: null, items_done: 1, items_total: 4 }), 0.25);
  assert.equal(shareDone({ bytes_done: 20, bytes_total: 10 }), 1);
  assert.equal(shareDone({ bytes_done: 20, bytes_total: null, items_total: null }), null);
});

test('steps of an axis are round, and reach the largest value', () => {
  assert.deepEqual(byteTicks(0), [0]);
  for (const max of [1, 1000, 1024, 3 * 1024 ** 2, 7.5 * 1024 ** 3]) {
    const ticks = byteTicks(max);
    assert.ok(ticks.at(-1) >= max && ticks.length <= 7, `${max}: ${ticks}`);
  }
});

test('points stand in their box, the newest at the right', () => {
  const box = { left: 10, top: 0, width: 100, height: 50 };
  const points = [{ time: '2026-01-01T00:00:00Z', value: 0 }, { time: '2026-01-02T00:00:00Z', value: 10 }];
  const marks = placed(points, box, 10);
  assert.deepEqual(marks, [{ x: 10, y: 50 }, { x: 110, y: 0 }]);
  assert.equal(stepPath(marks, 10), 'M10 50H10H110V0');
  assert.equal(areaPath(marks, box), 'M10 50H10H110V0V50H10Z');
  assert.equal(stepPath([], 0), '');
});

test('every moment falls into one span', () => {
  const all = spans([0, 5, 10, 10], 5);
  assert.equal(all.length, 5);
  assert.equal(all.reduce((sum, { count }) => sum + count, 0), 4);
  assert.equal(all.at(-1).count, 2);
  assert.equal(spans([7, 7], 3)[0].count, 2);
  assert.deepEqual(spans([], 3), []);
});

test('paths lead back to their source', () => {
  const names = (path, sources) => crumbs(path, sources).map(({ name }) => name);
  assert.deepEqual(names('/home/me/a', ['/home', '/home/me']), ['/home/me', 'a']);
  assert.deepEqual(names('/', ['/']), ['/']);
  assert.deepEqual(names('/etc/x', ['/']), ['/', 'etc', 'x']);
  assert.deepEqual(names('s3://b/p/q', ['s3://b/p']), ['s3://b/p', 'q']);
  assert.deepEqual(crumbs('/home/me/a', ['/home']).map(({ path }) => path), ['/home', '/home/me', '/home/me/a']);
  assert.deepEqual(names('/else', ['/home']), ['/else']);
});

test('names and folders of paths', () => {
  assert.equal(baseName('/a/b/'), 'b');
  assert.equal(baseName('/'), '/');
  assert.equal(pattern('report'), '*report*');
  assert.equal(pattern('*.odt'), '*.odt');
  assert.equal(coveredBy('/home/me', ['/home']), '/home');
  assert.equal(coveredBy('/home2', ['/home']), null);
});

test('every view with all that it is made of is small', () => {
  const frame = ['index.html', 'page.css', 'favicon.svg'].map((name) => join(PAGE, name));
  for (const [, view] of [...ROUTES, [null, 'log-in']]) {
    const all = new Set([...frame, ...imported(join(PAGE, 'page.js')), ...imported(join(PAGE, `views/${view}.js`))]);
    const size = [...all].reduce((sum, path) => sum + statSync(path).size, 0);
    assert.ok(size <= PAGE_BYTES_MAX, `${view}: ${size} bytes`);
  }
});

test('nothing of the page is from elsewhere or made of markup', () => {
  const files = filesOf(PAGE).filter((path) => /\.(js|css|html|svg)$/.test(path));
  for (const path of files) {
    const text = readFileSync(path, 'utf8');
    assert.doesNotMatch(text, /innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function/, path);
    assert.doesNotMatch(text, /\bstyle=|\son\w+=|['"]style['"]/, path);
    const hosts = [...text.matchAll(/(?:src|href|from|import)\s*[=(]?\s*['"]https?:\/\/([^/'"]+)/g)].map(([, host]) => host);
    assert.deepEqual(hosts, [], path);
  }
});

test('the server has every file of the page', () => {
  const listed = readFileSync(join(PAGE, 'files.rs'), 'utf8');
  for (const path of filesOf(PAGE)) {
    const name = relative(PAGE, path);
    if (/\.(js|css|svg|html)$/.test(name)) assert.ok(listed.includes(`include_bytes!("${name}")`), name);
  }
});

/** Gives a module and all that it imports, and these import. */
function imported(path, found = new Set()) {
  if (found.has(path)) return found;
  found.add(path);
  const text = readFileSync(path, 'utf8');
  for (const [, name] of text.matchAll(/from '(\.[^']+)'/g)) imported(join(dirname(path), name), found);
  return found;
}

function filesOf(folder) {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    return entry.isDirectory() ? filesOf(path) : [path];
  });
}
