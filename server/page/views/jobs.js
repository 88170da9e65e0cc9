/**
 * Jobs: what is backed up, when, and how that went.
 */

import * as api from '../lib/api.js';
import { h } from '../lib/dom.js';
import { ago, moment } from '../lib/format.js';
import { to } from '../lib/route.js';
import { words } from '../lib/schedule.js';
import { searched } from '../parts/filter.js';
import { state, strip } from '../parts/marks.js';
import { actionButton, empty, linkButton, pagedList, top } from '../parts/page.js';
import { outcomeWords } from '../lib/runs.js';

/** How many runs of all jobs together are looked at for the strips. */
const HISTORY = 300;
/** Runs that one strip shows. */
const STRIP = 14;

/** Shows all jobs. */
export async function view({ query, session, signal }) {
  const isAdmin = session.scope === 'admin';
  const none = (search) =>
    search
      ? empty('No job is called that', `Nothing has “${search}” in its name.`)
      : empty('No job yet', 'A job says what is backed up, where to, when, and for how long it is kept.', isAdmin && linkButton('#/new-job', 'Add a job', 'main'));
  const history = await api.get('/history', { limit: HISTORY }, signal).catch(() => ({ items: [] }));
  const list = (search) =>
    pagedList(
      (cursor) => api.get('/jobs', { search, cursor }, signal),
      (items) => items.map((job) => h('li', { class: 'item' }, jobRow(job, runsOf(history.items, job.name), session))),
      { empty: () => none(search) },
    );
  return {
    title: 'Jobs',
    content: [
      top('Jobs', { actions: isAdmin ? [linkButton('#/new-job', 'Add a job', 'main')] : [] }),
      searched('Search jobs', 'jobs', query.search ?? '', list),
    ],
  };
}

/** Gives the last backups of a job, the oldest first. */
export function runsOf(history, name) {
  return history.filter(({ job, kind }) => job === name && kind === 'backup').slice(0, STRIP).reverse();
}

function jobRow(job, runs, session) {
  const settings = job.settings;
  return [
    h(
      'div',
      {},
      h('h2', {}, h('a', { href: to(['jobs', job.name]) }, job.name)),
      h('p', { class: 'quiet small' }, settings ? [words(settings), ' · '] : null, `to ${job.location}`),
      h('p', { class: 'quiet small' }, `Last success ${ago(job.last_success, Date.now())}`, ' · ', job.next ? `next ${moment(job.next)}` : 'run by hand'),
      job.mistake && h('p', { class: 'wrong' }, job.mistake),
    ),
    h('div', { class: 'aside stack' }, h('div', { class: 'row' }, runs.length > 0 && strip(runs), state(stateOf(job))), mayRun(session) && !job.running && runButton(job)),
  ];
}

/** Gives the state of a job in a list. */
export function stateOf(job) {
  if (job.mistake) return { tone: 'bad', word: 'mistake' };
  if (job.running) return { tone: 'busy', word: 'running' };
  return job.last ? outcomeWords(job.last.outcome) : { tone: 'plain', word: 'never run' };
}

/** Tells whether somebody may start and stop jobs. */
export function mayRun({ scope }) {
  return ['admin', 'operate', 'backup-only'].includes(scope);
}

/** Makes the button that runs a job now and goes to its run. */
export function runButton(job, kind = 'slim') {
  const run = async () => {
    const started = await api.start(`/jobs/${api.part(job.name)}/run`);
    location.hash = to(['runs', started.id]);
  };
  return actionButton('Run now', run, { kind, label: `Run now: ${job.name}` });
}
