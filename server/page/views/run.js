/**
 * One run: live while it goes on, then what came of it.
 */

import * as api from '../lib/api.js';
import { fill, h } from '../lib/dom.js';
import { bytes, count, duration, moment, things } from '../lib/format.js';
import { to } from '../lib/route.js';
import { backupSummary, kindWords, outcomeWords } from '../lib/runs.js';
import { liveRun } from '../parts/live.js';
import { state } from '../parts/marks.js';
import { actionButton, linkButton, note, pairs, top } from '../parts/page.js';
import { mayRun } from './jobs.js';

/** Shows a run. */
export async function view({ names, session, signal }) {
  const run = await api.get(`/runs/${api.part(names.id)}`, {}, signal);
  const title = `${kindWords(run.kind)} ${run.job ?? run.location ?? ''}`.trim();
  const head = h('div', {});
  const result = h('div', {});
  const place = (current, lines) => {
    fill(head, headPart(current, session));
    fill(result, resultPart(current, lines));
  };
  place(run, []);
  const live = liveRun(run.id, signal, { ended: place });
  return {
    title,
    content: h(
      'div',
      { class: 'stack-large' },
      top(title, { back: ['#/runs', 'Runs'], about: run.dry_run ? 'A dry run: nothing is changed.' : null }),
      head,
      h('section', { class: 'card', 'aria-label': 'Progress and log' }, live),
      result,
    ),
  };
}

function headPart(run, session) {
  const cancel = () => api.post(`/runs/${api.part(run.id)}/cancel`);
  const mayCancel = run.outcome === null && mayRun(session) && (run.kind === 'job' || session.scope !== 'backup-only');
  return h(
    'div',
    { class: 'row spread' },
    h(
      'div',
      { class: 'stack' },
      state(outcomeWords(run.outcome)),
      pairs([
        ['Started', `${moment(run.started)} by ${run.by ?? run.trigger}`],
        ['Ended', run.ended ? moment(run.ended) : null],
        ['Job', run.job && h('a', { href: to(['jobs', run.job]) }, run.job)],
        ['Destination', run.location && h('a', { href: to(['destinations', run.location]) }, run.location)],
      ]),
    ),
    mayCancel && actionButton('Cancel', cancel, { kind: 'grave' }),
  );
}

function resultPart(run, lines) {
  const backup = backupSummary(lines);
  return backup ? backupPart(run, backup) : null;
}

function backupPart(run, { snapshot, statistics, issues, issue_count: issueCount, seconds }) {
  const fresh = statistics;
  return h(
    'div',
    { class: 'stack-large' },
    h(
      'section',
      { class: 'card stack' },
      h('h2', {}, 'What was new'),
      pairs([
        ['Entries', `${count(fresh.new)} new, ${count(fresh.changed)} changed, ${count(fresh.unchanged)} unchanged`],
        ['Source', `${bytes(fresh.bytes)} in ${things(fresh.files, 'file')}, ${bytes(fresh.bytes_read)} read`],
        ['Added', `${bytes(fresh.bytes_added)}, stored in ${bytes(fresh.bytes_stored)}`],
        ['Time', duration(seconds)],
        ['Snapshot', snapshot ? h('code', {}, snapshot.slice(0, 8)) : 'none, as nothing changed'],
      ]),
      snapshot && run.location && linkButton(to(['snapshots', run.location, snapshot]), 'Browse the snapshot'),
    ),
    issueCount > 0 && issuesPart(issues ?? [], issueCount),
  );
}

function issuesPart(issues, all) {
  const item = ({ path, operation, error }) => h('li', {}, h('span', { class: 'path' }, path), h('p', { class: 'quiet small' }, `${operation}: ${error}`));
  return h(
    'section',
    { class: 'stack' },
    h('h2', {}, `What could not be read (${count(all)})`),
    issues.length < all && note('', h('p', {}, `The first ${count(issues.length)} of them.`)),
    h('ul', { class: 'list' }, issues.map(item)),
  );
}
