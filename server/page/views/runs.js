/**
 * Runs: what the service did and does.
 */

import * as api from '../lib/api.js';
import { h } from '../lib/dom.js';
import { ago, duration, moment, secondsBetween } from '../lib/format.js';
import { to } from '../lib/route.js';
import { kindWords, outcomeWords } from '../lib/runs.js';
import { filterSelect } from '../parts/filter.js';
import { state } from '../parts/marks.js';
import { empty, pagedList, top } from '../parts/page.js';

const KINDS = ['job', 'restore', 'check', 'prune', 'forget', 'validate', 'export', 'import'];

/** Shows runs, the newest first. */
export async function view({ query, signal }) {
  const kind = query.kind ?? '';
  const running = query.running ?? '';
  const list = pagedList(
    (cursor) => api.get('/runs', { kind, running, job: query.job, limit: 50, cursor }, signal),
    (items) => items.map((run) => h('li', { class: 'item' }, row(run))),
    { empty: () => empty('No runs', kind || running ? 'There is none of these.' : 'What runs, and what ran, stands here.') },
  );
  const kinds = [['', 'All'], ...KINDS.map((one) => [one, kindWords(one)])];
  const states = [['', 'Running or not'], ['true', 'Running'], ['false', 'Ended']];
  return {
    title: 'Runs',
    content: [
      top('Runs'),
      h(
        'div',
        { class: 'stack' },
        h(
          'div',
          { class: 'row' },
          filterSelect('Kind', kind, kinds, (value) => to('runs', { ...query, kind: value })),
          filterSelect('State', running, states, (value) => to('runs', { ...query, running: value })),
        ),
        query.job && h('p', {}, `Only those of the job ${query.job}. `, h('a', { href: to('runs', { kind, running }) }, 'Show all')),
        list,
      ),
    ],
  };
}

function row(run) {
  const what = run.job ?? run.location ?? '';
  const time = run.ended ? `${moment(run.started)}, took ${duration(secondsBetween(run.started, run.ended))}` : `began ${ago(run.started, Date.now())}`;
  return [
    h(
      'div',
      {},
      h('h2', {}, h('a', { href: to(['runs', run.id]) }, `${kindWords(run.kind)}${what ? ` ${what}` : ''}${run.dry_run ? ' (dry run)' : ''}`)),
      h('p', { class: 'quiet small' }, time, ` · started by ${run.by ?? run.trigger}`),
      run.error && h('p', { class: 'wrong small' }, run.error),
    ),
    h('div', { class: 'aside' }, state(outcomeWords(run.outcome))),
  ];
}
