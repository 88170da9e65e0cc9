import assert from 'node:assert/strict';
import { test } from 'node:test';

import * as schedule from '../../../server/page/lib/schedule.js';

test('a schedule is said in words', () => {
  const cases = [
    [{ every: 1, hours: [3] }, 'every day at 03:00 UTC'],
    [{ every: 2, hours: [13, 1] }, 'every 2 days at 01:00 and 13:00 UTC'],
    [{ every: 7, hours: [1, 2, 3] }, 'every week at 01:00, 02:00 and 03:00 UTC'],
    [{ hours: [5] }, 'every day at 05:00 UTC'],
    [{ cron: '30 2 * * *', 'time-zone': 'Europe/Berlin' }, 'every day at 02:30, Europe/Berlin'],
    [{ cron: '0 4 * * sun' }, 'every Sunday at 04:00'],
    [{ cron: '0 4 * * 7' }, 'every Sunday at 04:00'],
    [{ cron: '*/5 * * * *' }, 'cron */5 * * * *'],
    [{ hours: [] }, 'only when it is started by hand'],
    [{}, 'only when it is started by hand'],
  ];
  for (const [said, expected] of cases) assert.equal(schedule.words(said), expected);
});

test('days between runs are whole, and at most a year', () => {
  for (const text of ['1', '366', ' 2 ']) assert.equal(schedule.refuseEvery(text), null, text);
  for (const text of ['0', '367', '-1', '1.5', '', 'daily']) assert.match(schedule.refuseEvery(text), /1 to 366/, text);
});

test('an hour has to be chosen', () => {
  assert.equal(schedule.refuseHours([0]), null);
  assert.match(schedule.refuseHours([]), /never run/);
});

test('cron expressions that larder takes are taken', () => {
  for (const cron of ['15 3 * * *', '*/20 * * * *', '5-50/15 11 * * *', '0 0 1 jan *', '0 0 1,15 * *', '0 0 * * FRI-SUN', '0 0 29 2 */7', ' @weekly ', '0  3 * * 7']) {
    assert.equal(schedule.refuseCron(cron), null, cron);
  }
});

test('what is no cron expression is refused with the part that is wrong', () => {
  const cases = [
    ['', /five fields/], ['0 3 * *', /4 fields/], ['60 3 * * *', /“60” is no minute: it has to be 0 to 59/], ['0 24 * * *', /no hour/],
    ['0 3 0 * *', /no day of the month/], ['0 3 * foo *', /1 to 12, or jan to dec/], ['0 3 * * 8', /0 to 7, or sun to sat/], ['+5 3 * * *', /no minute/],
    ['1,,2 3 * * *', /“” is no minute/], ['*/0 3 * * *', /as its step/], ['5/10 3 * * *', /write \*\/10 or 5-59\/10/], ['0 22-2 * * *', /write 22-23,0-2/], ['@reboot', /1 fields/],
  ];
  for (const [cron, why] of cases) assert.match(schedule.refuseCron(cron) ?? 'taken', why, cron);
});

test('an hour in UTC is another one elsewhere, as it is that day', () => {
  assert.equal(schedule.hourIn(1, 'Europe/Berlin', Date.parse('2026-01-10T12:00:00Z')), '02:00');
  assert.equal(schedule.hourIn(1, 'Europe/Berlin', Date.parse('2026-07-10T12:00:00Z')), '03:00');
  assert.equal(schedule.hourIn(23, 'Asia/Kolkata', Date.parse('2026-07-10T12:00:00Z')), '04:30');
});
