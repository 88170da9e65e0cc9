/**
 * One job: what it says, its next runs, and those that were.
 */

import * as api from '../lib/api.js';
import { h } from '../lib/dom.js';
import { ago, bytes, duration, moment, secondsBetween } from '../lib/format.js';
import * as retention from '../lib/retention.js';
import { to } from '../lib/route.js';
import { kindWords, outcomeWords } from '../lib/runs.js';
import { words } from '../lib/schedule.js';
import { upcomingPart } from '../parts/job-form.js';
import { state } from '../parts/marks.js';
import { actionButton, ask, linkButton, note, pagedList, pairs, top } from '../parts/page.js';
import { mayRun, runButton, stateOf } from './jobs.js';

/** Shows a job. */
export async function view({ names, session, signal }) {
  const path = `/jobs/${api.part(names.name)}`;
  const job = await api.get(path, {}, signal);
  const isAdmin = session.scope === 'admin';
  const cancel = async () => {
    const run = await api.post(`${path}/cancel`);
    location.hash = to(['runs', run.id]);
  };
  const actions = [
    mayRun(session) && (job.running ? actionButton('Cancel the run', cancel) : runButton(job, 'main')),
    isAdmin && linkButton(to(['edit-job', job.name]), 'Edit'),
  ].filter(Boolean);
  return {
    title: job.name,
    content: h(
      'div',
      { class: 'stack-large' },
      top(job.name, { actions, back: ['#/jobs', 'Jobs'] }),
      job.mistake && note('bad', h('p', {}, job.mistake)),
      aboutPart(job),
      upcomingPart(job.upcoming?.backup, Intl.DateTimeFormat().resolvedOptions().timeZone || 'UTC'),
      historyPart(path, signal),
      isAdmin && h('section', {}, actionButton('Remove this job', () => remove(path, job), { kind: 'grave' })),
    ),
  };
}

function aboutPart(job) {
  const settings = job.settings ?? {};
  const lines = (texts) => h('ul', {}, (texts ?? []).map((text) => h('li', { class: 'path' }, text)));
  const table = (found) => (found ? words(found) : 'never by itself');
  return h(
    'section',
    { class: 'card stack', 'aria-label': 'What it does' },
    state(stateOf(job)),
    job.last?.error && h('p', { class: 'wrong' }, job.last.error),
    pairs([
      ['Backs up', lines(settings.sources)],
      ['Leaves out', settings.exclude?.length > 0 ? lines(settings.exclude) : null],
      ['To', h('a', { href: to(['destinations', job.location]) }, job.location)],
      ['When', words(settings)],
      ['Kept', retention.words(settings)],
      ['Frees space', table(settings.prune)],
      ['Checks', table(settings.check)],
      ['Last success', ago(job.last_success, Date.now())],
    ]),
    linkButton(to(['snapshots', job.location], { tag: `job:${job.name}` }), 'Its snapshots', 'slim'),
  );
}

function historyPart(path, signal) {
  const body = h('tbody', {});
  const container = h(
    'div',
    { class: 'wide', tabindex: '0', role: 'region', 'aria-label': 'Past runs' },
    h(
      'table',
      {},
      h('thead', {}, h('tr', {}, ['Started', 'What', 'Outcome'].map((name) => h('th', { scope: 'col' }, name)), ['Took', 'Stored'].map((name) => h('th', { scope: 'col', class: 'number seldom' }, name)))),
      body,
    ),
  );
  const row = (run) =>
    h(
      'tr',
      {},
      h('td', {}, moment(run.started)),
      h('td', {}, kindWords(run.kind)),
      h('td', {}, state(outcomeWords(run.outcome)), run.error && h('p', { class: 'wrong small' }, run.error)),
      h('td', { class: 'number seldom' }, duration(secondsBetween(run.started, run.ended))),
      h('td', { class: 'number seldom' }, bytes(run.bytes_stored)),
    );
  const list = pagedList(
    (cursor) => api.get(`${path}/history`, { limit: 20, cursor }, signal),
    (items) => items.map(row),
    { list: body, container, empty: () => h('p', { class: 'quiet' }, 'It was never run.') },
  );
  return h('section', { class: 'stack' }, h('h2', {}, 'Past runs'), list);
}

async function remove(path, job) {
  const text = 'Its snapshots stay where they are, and are forgotten by no rule any more.';
  if (!(await ask(`Remove ${job.name}?`, text, 'Remove'))) return;
  await api.remove(path);
  location.hash = '#/jobs';
}
