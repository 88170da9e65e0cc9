/**
 * Health: whether every job is well, and how the repositories are.
 */

import * as api from '../lib/api.js';
import { h } from '../lib/dom.js';
import { ago, bytes, moment, ratio, share } from '../lib/format.js';
import { growth, headline, judge } from '../lib/health.js';
import { to } from '../lib/route.js';
import { areaChart, shareBars } from '../parts/charts.js';
import { state, strip } from '../parts/marks.js';
import { empty, later, linkButton, top } from '../parts/page.js';
import { mayRun, runButton, runsOf } from './jobs.js';

const HISTORY = 300;
/** Repositories whose figures are added up at once; that takes a while with a large one. */
const LOCATIONS_MAX = 3;
const LISTED = 100;
const JOBS_MAX = 100;
const GRAVITY = ['bad', 'warn', 'busy', 'plain', 'good'];

/** Shows the health of jobs and repositories. */
export async function view({ session, signal }) {
  const [{ jobs }, history, locations] = await Promise.all([
    api.get('/health', {}, signal),
    api.get('/history', { limit: HISTORY }, signal).catch(() => ({ items: [] })),
    api.get('/locations', { limit: LISTED }, signal),
  ]);
  const sorted = [...jobs].sort((a, b) => gravity(a) - gravity(b) || a.name.localeCompare(b.name));
  const row = (job) => h('li', { class: 'item' }, jobRow(job, runsOf(history.items, job.name), session));
  const usable = locations.items.filter((location) => location.has_password);
  return {
    title: 'Health',
    content: h(
      'div',
      { class: 'stack-large' },
      top(headline(jobs), { about: jobs.length > 0 ? summary(jobs) : null }),
      jobs.length === 0 && nothing(session),
      jobs.length > 0 && h('ul', { class: 'list' }, sorted.slice(0, JOBS_MAX).map(row)),
      jobs.length > JOBS_MAX && h('p', {}, h('a', { href: '#/jobs' }, `All ${jobs.length} jobs`)),
      usable.slice(0, LOCATIONS_MAX).map((location) => repositoryPart(location, signal)),
      usable.length > LOCATIONS_MAX && h('p', {}, 'Figures of the others: ', usable.slice(LOCATIONS_MAX).map(({ name }) => [h('a', { href: to(['destinations', name]) }, name), ' '])),
    ),
  };
}

function gravity(job) {
  return GRAVITY.indexOf(judge(job).tone);
}

function summary(jobs) {
  const last = jobs.map((job) => job.last_success).filter(Boolean).sort().at(-1);
  return last ? `Last backup ${ago(last, Date.now())}.` : null;
}

function nothing(session) {
  const action = session.scope === 'admin' && linkButton('#/setup', 'Set up the first backup', 'main');
  return empty('Begin here', 'Four steps lead to the first backup: where to, a password, what, and when.', action);
}

function jobRow(job, runs, session) {
  const { tone, word, why, advice } = judge(job);
  return [
    h(
      'div',
      {},
      h('h2', {}, h('a', { href: to(['jobs', job.name]) }, job.name)),
      h('p', { class: 'quiet small' }, `Last success ${ago(job.last_success, Date.now())}`, job.next && ` · next ${moment(job.next)}`),
      why && h('p', { class: tone === 'bad' ? 'wrong' : 'small' }, why),
      advice && h('p', { class: 'small' }, advice),
      tone === 'bad' && h('p', { class: 'row small' }, h('a', { href: to(['destinations', job.location]) }, 'Its destination'), h('a', { href: to('runs', { job: job.name }) }, 'Its runs')),
    ),
    h('div', { class: 'aside stack' }, h('div', { class: 'row' }, runs.length > 0 && strip(runs), state({ tone, word })), mayRun(session) && tone !== 'busy' && runButton(job)),
  ];
}

function repositoryPart(location, signal) {
  const path = `/locations/${api.part(location.name)}`;
  const both = Promise.all([api.get(`${path}/stats`, { history: true }, signal), api.get(`${path}/status`, {}, signal)]);
  return h(
    'section',
    { class: 'card stack' },
    h('h2', {}, h('a', { href: to(['destinations', location.name]) }, location.name)),
    later(both, ([stats, status]) => figuresPart(stats, status.items?.[0]?.verified), 'Adding up what is stored …'),
  );
}

function figuresPart(stats, verified) {
  const figure = (name, value) => h('div', {}, h('p', { class: 'quiet small' }, name), h('p', { class: 'figure' }, value));
  const bars = verified
    ? [7, 30, 90].map((days) => {
        const part = verified[`days_${days}`];
        return { name: `${days} days`, share: verified.bytes > 0 ? part / verified.bytes : 0, text: share(part, verified.bytes) };
      })
    : null;
  return h(
    'div',
    { class: 'stack' },
    h(
      'div',
      { class: 'grid' },
      figure('Stored', bytes(stats.stored_bytes)),
      figure('Deduplication', ratio(stats.restore_bytes, stats.chunk_bytes)),
      figure('Compression', ratio(stats.chunk_bytes, stats.pack_bytes)),
      bars && h('div', {}, h('p', { class: 'quiet small' }, 'Verified within'), shareBars('Verified', bars)),
    ),
    stats.history && areaChart('What snapshots added', growth(stats.history)),
  );
}
