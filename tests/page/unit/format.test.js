import assert from 'node:assert/strict';
import { test } from 'node:test';

import * as format from '../../../server/page/lib/format.js';

const MINUTE = 60_000;
const NOW = Date.parse('2026-11-22T12:00:00Z');

test('sizes count by 1024, and never show 1024 of a unit', () => {
  const cases = [
    [0, '0 B'], [1, '1 B'], [1023, '1023 B'], [1024, '1.0 KiB'], [1536, '1.5 KiB'], [102_400, '100 KiB'],
    [1024 * 1024 - 1, '1.0 MiB'], [5 * 1024 ** 3, '5.0 GiB'], [3 * 1024 ** 6, '3072 PiB'],
  ];
  for (const [count, expected] of cases) assert.equal(format.bytes(count), expected);
});

test('what is not known is a dash', () => {
  for (const shown of [format.bytes(null), format.rate(undefined), format.count(NaN), format.duration(null), format.moment('never'), format.ratio(1, 0), format.share(1, 0)]) {
    assert.equal(shown, format.NONE);
  }
});

test('numbers have commas between thousands, and their things a plural', () => {
  assert.equal(format.count(1_234_567), '1,234,567');
  assert.equal(format.things(1, 'file'), '1 file');
  assert.equal(format.things(0, 'file'), '0 files');
  assert.equal(format.things(2, 'entry', 'entries'), '2 entries');
});

test('only all of it is 100 per cent, and only nothing is 0', () => {
  assert.equal(format.share(999_999, 1_000_000), '99 %');
  assert.equal(format.share(1, 1_000_000), '< 1 %');
  assert.equal(format.share(0, 10), '0 %');
  assert.equal(format.share(10, 10), '100 %');
});

test('durations have their two largest units', () => {
  const cases = [[0.2, 'under 1 s'], [59, '59 s'], [60, '1 min'], [95, '1 min 35 s'], [3600, '1 h'], [3725, '1 h 2 min'], [90_000, '1 d 1 h']];
  for (const [seconds, expected] of cases) assert.equal(format.duration(seconds), expected);
});

test('moments lie in the past, in the future, or were never', () => {
  const at = (minutes) => new Date(NOW - minutes * MINUTE).toISOString();
  assert.equal(format.ago(at(0), NOW), 'just now');
  assert.equal(format.ago(at(1), NOW), '1 minute ago');
  assert.equal(format.ago(at(120), NOW), '2 hours ago');
  assert.equal(format.ago(at(60 * 48), NOW), '2 days ago');
  assert.equal(format.ago(at(-180), NOW), 'in 3 hours');
  assert.equal(format.ago(null, NOW), 'never');
});

test('a moment is shown on the clock of a zone, over a change to summer time', () => {
  assert.equal(format.moment('2026-03-29T00:30:00Z', 'Europe/Berlin'), '2026-03-29 01:30');
  assert.equal(format.moment('2026-03-29T01:30:00Z', 'Europe/Berlin'), '2026-03-29 03:30');
  assert.equal(format.moment('2026-11-22T00:00:00Z', 'UTC'), '2026-11-22 00:00');
  assert.equal(format.day('2026-11-22T23:30:00Z', 'Europe/Berlin'), '2026-11-23');
  assert.equal(format.clock('2026-11-22T23:30:00Z', 'UTC'), '23:30');
  assert.equal(format.weekday('2026-11-22T12:00:00Z', 'UTC'), 'Sun');
});

test('the seconds between two moments are null without one of them', () => {
  assert.equal(format.secondsBetween('2026-11-22T12:00:00Z', '2026-11-22T12:01:30Z'), 90);
  assert.equal(format.secondsBetween('2026-11-22T12:00:00Z', null), null);
});

test('a ratio has two digits while it is small', () => {
  assert.equal(format.ratio(191, 100), '1.91 : 1');
  assert.equal(format.ratio(1234, 100), '12.3 : 1');
});
