import assert from 'node:assert/strict';
import { test } from 'node:test';

import { emptyValues, fromJob, mistakes, partOf, refuseZone, toSettings } from '../../../server/page/lib/jobs.js';

const good = () => ({ ...emptyValues('UTC'), name: 'nightly', location: 'nas', sources: ['/home'] });

test('a new job is sound once it has a name, a destination and a source', () => {
  assert.deepEqual(Object.keys(mistakes(emptyValues())), ['name', 'location', 'sources']);
  assert.deepEqual(mistakes(good()), {});
});

test('settings have the keys of larder.toml', () => {
  const settings = toSettings({ ...good(), exclude: '*.tmp\n\n  *.o ', hours: [13, 1], every: '2', 'keep-days': '30', jitter: ' 10m ' });
  assert.deepEqual(settings, {
    location: 'nas',
    sources: ['/home'],
    exclude: ['*.tmp', '*.o'],
    'exclude-caches': true,
    jitter: '10m',
    every: 2,
    hours: [1, 13],
    'keep-days': 30,
    prune: { every: 7, hours: [3] },
    check: { every: 7, hours: [4], level: 'structure' },
  });
});

test('what an edited job no longer says is taken back, and what the form does not know stays', () => {
  const before = { location: 'nas', sources: ['/home'], exclude: ['*.o'], every: 1, hours: [3], 'keep-days': 30, tag: ['x'], check: { every: 7, hours: [4], level: 'data', 'max-duration': '30m' } };
  const values = { ...fromJob({ name: 'nightly', settings: before }), exclude: '', when: 'cron', cron: '0 3 * * *', 'time-zone': 'UTC', keep: 'all' };
  const settings = toSettings(values, before);
  assert.equal(settings.exclude, null);
  assert.equal(settings.every, null);
  assert.equal(settings.hours, null);
  assert.equal(settings.cron, '0 3 * * *');
  assert.equal(settings['keep-days'], null);
  assert.equal('tag' in settings, false);
  assert.deepEqual(settings.check, { every: 7, hours: [4], level: 'data', 'max-duration': '30m' });
});

test('a job that is opened and saved says the same', () => {
  const cases = [
    { location: 'nas', sources: ['/home'], every: 2, hours: [1, 13], 'keep-days': 30, 'exclude-caches': true },
    { location: 'nas', sources: ['/home'], cron: '30 2 * * *', 'time-zone': 'Europe/Berlin', forget: { 'keep-daily': 7, 'keep-within': '2d' }, 'catch-up': false },
    { location: 'nas', sources: ['s3://photos'], prune: { cron: '0 3 * * sun', 'time-zone': 'UTC', 'max-unused': '5%' } },
  ];
  for (const settings of cases) assert.deepEqual(toSettings(fromJob({ name: 'x', settings }), settings), settings);
});

test('a schedule of the upkeep by cron gives way to days that are chosen', () => {
  const settings = { location: 'nas', sources: ['/home'], prune: { cron: '0 3 * * sun', 'max-unused': '5%' } };
  const values = { ...fromJob({ name: 'x', settings }), 'prune-every': '14', 'prune-hour': '5', 'prune-changed': true };
  assert.deepEqual(toSettings(values, settings).prune, { 'max-unused': '5%', cron: null, every: 14, hours: [5] });
});

test('a rule that was emptied is taken back', () => {
  const settings = { location: 'nas', sources: ['/home'], forget: { 'keep-daily': 7, 'keep-weekly': 5, 'keep-tag': [] } };
  const form = fromJob({ name: 'x', settings });
  const values = { ...form, rules: { ...form.rules, 'keep-weekly': '' } };
  assert.deepEqual(toSettings(values, settings).forget, { 'keep-daily': 7, 'keep-weekly': null });
});

test('a schedule that never runs and a retention that keeps nothing are refused', () => {
  assert.match(mistakes({ ...good(), hours: [] }).hours, /never run/);
  assert.match(mistakes({ ...good(), 'keep-days': '0' })['keep-days'], /no snapshot/);
  assert.match(mistakes({ ...good(), keep: 'rules', rules: { 'keep-daily': '0' } }).forget, /every one would be forgotten/);
  assert.match(mistakes({ ...good(), when: 'cron', cron: '61 * * * *' }).cron, /no minute/);
  assert.match(mistakes({ ...good(), when: 'cron', 'time-zone': 'Mars' })['time-zone'], /time zone/);
});

test('what is not chosen is not judged', () => {
  assert.deepEqual(mistakes({ ...good(), when: 'manual', hours: [], every: 'x', keep: 'all', 'keep-days': '0', prune: false, 'prune-every': '0' }), {});
});

test('a source that cannot be backed up is named', () => {
  assert.match(mistakes({ ...good(), sources: ['/home', 'ftp://x/y'] }).sources, /ftp:\/\/x\/y: ftp:\/\/ cannot be backed up/);
});

test('a field of the answer finds its part of the form', () => {
  const cases = [['settings.hours', 'hours'], ['cron', 'cron'], ['settings.prune.every', 'prune-every'], ['check.hours', 'check-hour'], ['forget.keep-daily', 'keep-daily'], ['forget', 'forget'], [null, null]];
  for (const [field, part] of cases) assert.equal(partOf(field), part);
});

test('time zones are those that there are', () => {
  assert.equal(refuseZone('Europe/Berlin'), null);
  assert.equal(refuseZone('UTC'), null);
  for (const zone of ['', 'Europe/Berlim']) assert.match(refuseZone(zone), /time zone/);
});
