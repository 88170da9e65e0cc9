/**
 * One destination: what is said of it, its repository, and what can be done with it.
 */

import * as api from '../lib/api.js';
import { fill, h } from '../lib/dom.js';
import { bytes, count, ratio } from '../lib/format.js';
import { growth } from '../lib/health.js';
import { kindOf } from '../lib/kinds.js';
import { to } from '../lib/route.js';
import { areaChart } from '../parts/charts.js';
import { repositoryForm } from '../parts/destination-form.js';
import { liveRun } from '../parts/live.js';
import { state } from '../parts/marks.js';
import { actionButton, ask, later, linkButton, note, pairs, top } from '../parts/page.js';
import { validation } from '../parts/validation.js';
import { stateOf } from './destinations.js';

/** Shows a destination. */
export async function view({ names, session, signal }) {
  const path = `/locations/${api.part(names.name)}`;
  const location = await api.get(path, {}, signal);
  const isAdmin = session.scope === 'admin';
  const mayWork = isAdmin || session.scope === 'operate';
  const actions = isAdmin ? [linkButton(to(['edit-destination', location.name]), 'Edit')] : [];
  return {
    title: location.name,
    content: h(
      'div',
      { class: 'stack-large' },
      top(location.name, { about: kindOf(location.url)?.title, actions, back: ['#/destinations', 'Destinations'] }),
      location.mistake && note('bad', h('p', {}, location.mistake)),
      settingsPart(location),
      location.has_password ? repositoryPart(path, location, signal) : missingPart(location, isAdmin),
      mayWork && workPart(path, location, signal),
      isAdmin && removePart(path, location),
    ),
  };
}

function settingsPart(location) {
  const settings = Object.entries(location.settings ?? {});
  const notes = Object.entries(location.notes ?? {}).map(([key, value]) => [`${key} (note)`, value]);
  return h(
    'section',
    { class: 'card stack', 'aria-label': 'Settings' },
    state(stateOf(location)),
    pairs([['URL', h('span', { class: 'path' }, location.url)], ...settings.map(([key, value]) => [key, String(value)]), ...notes]),
  );
}

function missingPart(location, isAdmin) {
  if (!isAdmin) return note('warn', h('p', {}, 'An administrator has to give the password of its repository first.'));
  const done = () => window.dispatchEvent(new Event('hashchange'));
  return h(
    'section',
    { class: 'stack' },
    h('h2', {}, 'Its repository'),
    h('p', { class: 'quiet' }, 'The server does not hold a password for a repository at this place.'),
    repositoryForm({ location: location.name, done }),
  );
}

function repositoryPart(path, location, signal) {
  const stats = api.get(`${path}/stats`, { history: true }, signal);
  return h(
    'section',
    { class: 'card stack' },
    h('div', { class: 'row spread' }, h('h2', {}, 'Its repository'), linkButton(to(['snapshots', location.name]), 'Snapshots', 'slim')),
    later(stats, statsPart, 'Adding up what is stored …'),
  );
}

function statsPart(stats) {
  return h(
    'div',
    { class: 'stack' },
    h(
      'div',
      { class: 'grid' },
      figure('Stored', bytes(stats.stored_bytes)),
      figure('Snapshots', count(stats.snapshots)),
      figure('Deduplication', ratio(stats.restore_bytes, stats.chunk_bytes)),
      figure('Compression', ratio(stats.chunk_bytes, stats.pack_bytes)),
    ),
    stats.history && areaChart('What snapshots added', growth(stats.history)),
  );
}

function figure(name, value) {
  return h('div', {}, h('p', { class: 'quiet small' }, name), h('p', { class: 'figure' }, value));
}

function workPart(path, location, signal) {
  const place = h('div', {});
  const follow = (title, run) => fill(place, h('section', { class: 'card stack', 'aria-label': title }, h('h3', {}, title), liveRun(run.id, signal)));
  const validate = async () => {
    const run = await api.start(`${path}/validate`, {});
    fill(place, h('section', { class: 'card stack', 'aria-label': 'Validation' }, validation(run.id, signal, () => {})));
  };
  const check = (level, title) => async () => follow(title, await api.start(`${path}/check`, { level }));
  const plan = async () => {
    const run = await api.start(`${path}/prune`, { dry_run: true });
    const node = liveRun(run.id, signal, { ended: (ended) => fill(applying, pruneNext(ended, prune)) });
    const applying = h('div', {});
    fill(place, h('section', { class: 'card stack', 'aria-label': 'Prune' }, h('h3', {}, 'What a prune would do'), node, applying));
  };
  const prune = async () => follow('Prune', await api.start(`${path}/prune`, { dry_run: false }));
  return h(
    'section',
    { class: 'stack' },
    h('h2', {}, 'Look after it'),
    h(
      'div',
      { class: 'row' },
      actionButton('Validate', validate),
      location.has_password && [
        actionButton('Check quickly', check('quick', 'Quick check')),
        actionButton('Check its structure', check('structure', 'Check of the structure')),
        actionButton('Read and verify everything', check('data', 'Check of all data')),
        actionButton('See what a prune would free', plan),
      ],
    ),
    place,
  );
}

function pruneNext(run, prune) {
  const totals = run.summary?.plan?.totals;
  if (run.outcome !== 'success' || !totals) return null;
  if (!(totals.freed_bytes > 0)) return h('p', {}, 'There is nothing to free.');
  return h('div', { class: 'stack' }, h('p', {}, `It would free ${bytes(totals.freed_bytes)} of ${bytes(totals.bytes)}.`), actionButton('Prune now', prune, { kind: 'main' }));
}

function removePart(path, location) {
  const remove = async () => {
    const text = `Larder forgets the place and the password of its repository. The repository itself stays at ${location.url}.`;
    if (!(await ask(`Remove ${location.name}?`, text, 'Remove'))) return;
    await api.remove(path);
    window.location.hash = '#/destinations';
  };
  return h('section', {}, actionButton('Remove this destination', remove, { kind: 'grave' }));
}
