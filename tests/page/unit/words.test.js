import assert from 'node:assert/strict';
import { test } from 'node:test';

import { advise, growth, headline, judge } from '../../../server/page/lib/health.js';
import * as retention from '../../../server/page/lib/retention.js';
import { backupSummary, lineWords, outcomeWords, stepFound, stripWords } from '../../../server/page/lib/runs.js';

test('a retention is said in words', () => {
  assert.equal(retention.words({ 'keep-days': 30 }), 'for 30 days');
  assert.equal(retention.words({ forget: { 'keep-last': 1, 'keep-daily': 7, 'keep-yearly': -1, 'keep-within': '2d' } }), '1 newest snapshot, 7 daily, all yearly, all within 2d');
  assert.equal(retention.words({}), 'for ever');
});

test('counts of a retention are whole, empty, or -1', () => {
  for (const text of ['', '0', '7', '-1']) assert.equal(retention.refuseCount(text), null);
  for (const text of ['-2', '1.5', 'x']) assert.match(retention.refuseCount(text), /whole number/);
  assert.equal(retention.refuseRules({ 'keep-last': '-1' }), null);
  assert.match(retention.refuseRules({ 'keep-last': '0', 'keep-daily': '' }), /forgotten/);
});

test('every outcome has a word, and what is not known counts as a failure', () => {
  assert.deepEqual(outcomeWords(null), { word: 'running', tone: 'busy' });
  assert.equal(outcomeWords('success').tone, 'good');
  assert.equal(outcomeWords('incomplete').tone, 'warn');
  assert.equal(outcomeWords('died').tone, 'bad');
  assert.deepEqual(outcomeWords('nonsense'), { word: 'failed', tone: 'bad' });
});

test('a step says what it found, or why it failed', () => {
  assert.equal(stepFound({ outcome: 'ok', latency_seconds: 0.0123 }), '12 ms');
  assert.equal(stepFound({ outcome: 'ok', bytes_per_second: 1024 * 1024 }), '1.0 MiB/s');
  assert.equal(stepFound({ outcome: 'failed', cause: 'nothing listens there' }), 'nothing listens there');
  assert.equal(stepFound({ outcome: 'ok' }), 'works');
});

test('lines of a log become text, and progress does not', () => {
  assert.equal(lineWords({ message_type: 'status' }), null);
  assert.equal(lineWords({ message_type: 'stderr', text: '{"message_type":"error"}' }), null);
  assert.deepEqual(lineWords({ message_type: 'warning', message: 'cannot read /x' }), { text: 'cannot read /x', tone: 'warn' });
  const summary = { message_type: 'summary', snapshot: '0123456789', statistics: { new: 1, changed: 2, unchanged: 3 }, issue_count: 1, seconds: 5 };
  assert.equal(lineWords(summary).text, 'snapshot 01234567: 1 new, 2 changed, 3 unchanged, 1 could not be read, in 5 s');
  assert.equal(lineWords({ message_type: 'something-new', path: '/x' }).text, 'something-new /x');
});

test('the summary of a backup is found among those of a job', () => {
  const backup = { message_type: 'summary', statistics: {} };
  assert.equal(backupSummary([backup, { message_type: 'summary', kept: 3 }, { message_type: 'summary', runs: [] }]), backup);
  assert.equal(backupSummary([]), null);
});

test('a strip of runs is said in words', () => {
  assert.equal(stripWords([]), 'No runs yet');
  assert.equal(stripWords([{ outcome: 'success' }, { outcome: 'failure' }, { outcome: 'incomplete' }]), 'The last 3 runs: 1 succeeded, 1 failed');
});

test('a red job says why, and what to do', () => {
  const failing = judge({ state: 'failing', why: 'nothing listens on that port', last: { exit_code: 1, error: 'x' } });
  assert.equal(failing.tone, 'bad');
  assert.equal(failing.why, 'nothing listens on that port');
  assert.match(failing.advice, /server is up/);
  assert.match(judge({ state: 'failing', last: { exit_code: 12, error: 'wrong password' } }).advice, /does not open its repository/);
  assert.match(judge({ state: 'mistake', mistake: 'hours: 25' }).why, /25/);
});

test('a job that could not read everything is not quite well', () => {
  assert.equal(judge({ state: 'ok', last: { outcome: 'success' } }).tone, 'good');
  assert.equal(judge({ state: 'ok', last: { outcome: 'incomplete' } }).tone, 'warn');
});

test('there is always some advice', () => {
  assert.match(advise(null, 'the disk is full'), /Make room/);
  assert.match(advise(1, 'something else'), /Read the log/);
});

test('the headline counts the jobs that are red', () => {
  assert.equal(headline([]), 'Nothing is backed up yet');
  assert.equal(headline([{ state: 'never' }]), 'Nothing is backed up yet');
  assert.equal(headline([{ state: 'ok' }, { state: 'never' }]), 'All is well');
  assert.equal(headline([{ state: 'ok' }, { state: 'failing' }]), 'One job needs you');
  assert.equal(headline([{ state: 'mistake' }, { state: 'failing' }]), '2 jobs need you');
});

test('growth adds up snapshot by snapshot', () => {
  const history = { snapshots: [{ time: 'a', added_stored_bytes: 5 }, { time: 'b', added_stored_bytes: 0 }, { time: 'c', added_stored_bytes: 7 }] };
  assert.deepEqual(growth(history).map(({ value }) => value), [5, 5, 12]);
  assert.deepEqual(growth(undefined), []);
});
