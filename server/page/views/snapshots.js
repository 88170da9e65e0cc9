/**
 * Snapshots of a destination: a timeline, and each of them.
 */

import * as api from '../lib/api.js';
import { fill, h, uniqueId } from '../lib/dom.js';
import { bytes, moment, things, weekday } from '../lib/format.js';
import { to } from '../lib/route.js';
import { timeline } from '../parts/charts.js';
import { filterSelect } from '../parts/filter.js';
import { empty, linkButton, pagedList, top } from '../parts/page.js';

const LOCATIONS_MAX = 1000;

/** Shows snapshots, the newest first. */
export async function view({ names, query, signal }) {
  const { items } = await api.get('/locations', { limit: LOCATIONS_MAX }, signal);
  const usable = items.filter((location) => location.has_password);
  const name = names.location ?? usable[0]?.name;
  if (!name) {
    const text = 'Snapshots appear here once a destination has a repository, and a job has run.';
    return { title: 'Snapshots', content: [top('Snapshots'), empty('No snapshots yet', text, linkButton('#/destinations', 'Destinations', 'main'))] };
  }
  const filter = { tag: query.tag, host: query.host, path: query.path };
  const choices = items.map((location) => [location.name, location.name]);
  const narrowed = Object.entries(filter).filter(([, value]) => value);
  return {
    title: `Snapshots at ${name}`,
    content: h(
      'div',
      { class: 'stack' },
      top('Snapshots', {
        about: 'Each is all that was backed up, as it was at one moment.',
        actions: [linkButton(to(['search', name]), 'Search in all'), linkButton(to(['compare', name]), 'Compare two')],
      }),
      h('div', { class: 'row' }, filterSelect('Destination', name, choices, (value) => to(['snapshots', value])), momentPart(name, query)),
      narrowed.length > 0 && h('p', {}, 'Only those with ', narrowed.map(([key, value]) => `${key} ${value} `), h('a', { href: to(['snapshots', name]) }, 'Show all')),
      listPart(name, filter, query.before, signal),
    ),
  };
}

/** Goes to a point in time. */
function momentPart(name, query) {
  const id = uniqueId('moment');
  const control = h('input', { id, type: 'datetime-local', value: query.local ?? '' });
  const submit = (event) => {
    event.preventDefault();
    const time = new Date(control.value);
    const isTime = !Number.isNaN(time.getTime());
    location.hash = to(['snapshots', name], { ...query, local: isTime ? control.value : '', before: isTime ? time.toISOString() : '' });
  };
  return h('form', { class: 'row', submit }, h('label', { for: id }, 'As of'), h('div', {}, control), h('button', {}, 'Go'));
}

function listPart(name, filter, before, signal) {
  const shelf = h('div', { class: 'card' });
  const list = h('ul', { class: 'list' });
  const path = `/locations/${api.part(name)}`;
  const jump = (from, until) => {
    const found = [...list.children].find(({ dataset }) => Number(dataset.time) >= from && Number(dataset.time) <= until);
    found?.scrollIntoView({ block: 'center' });
    found?.querySelector('a')?.focus({ preventScroll: true });
  };
  const draw = (all) => {
    shelf.hidden = all.length < 2;
    fill(shelf, timeline(all.map(({ time }) => time), jump));
  };
  const render = (items, shown) => items.map((item, index) => snapshotItem(name, item, index + shown === 0 && !before));
  const load = async (cursor) => {
    const page = await api.get(`${path}/snapshots`, { ...filter, before, limit: 50, cursor }, signal);
    return before ? { ...page, items: page.items.filter(({ time }) => time <= before) } : page;
  };
  const none = () => empty('No snapshots here', before ? 'There is none as old as that.' : 'They appear once a job has run.', linkButton('#/jobs', 'Jobs', 'main'));
  shelf.hidden = true;
  return [shelf, pagedList(load, render, { list, empty: none, loaded: draw })];
}

function snapshotItem(name, item, isNewest) {
  const { id, time, host, sources, tags, partial, pinned, statistics } = item;
  const more = [tags.join(', '), pinned && 'pinned', partial && 'unfinished'].filter(Boolean);
  return h(
    'li',
    { class: 'item', 'data-time': String(Date.parse(time)) },
    h(
      'div',
      {},
      h('h2', {}, h('a', { href: to(['snapshots', name, id]) }, `${weekday(time)} ${moment(time)}`), isNewest && h('span', { class: 'quiet small' }, ' the newest')),
      h('p', { class: 'path small' }, sources.join(' ')),
      h('p', { class: 'quiet small' }, h('code', {}, id.slice(0, 8)), ` · ${host} · ${bytes(statistics?.bytes)} in ${things(statistics?.files ?? 0, 'file')}`, more.map((text) => ` · ${text}`)),
    ),
    h(
      'div',
      { class: 'aside row' },
      h('a', { class: 'button slim', href: to(['snapshots', name, id]), 'aria-label': `Browse ${moment(time)}` }, 'Browse'),
      h('a', { class: 'button slim', href: to(['restore', name, id]), 'aria-label': `Restore ${moment(time)}` }, 'Restore'),
    ),
  );
}
