/**
 * What is in a snapshot: folder by folder, to be downloaded or restored.
 */

import * as api from '../lib/api.js';
import { h } from '../lib/dom.js';
import { bytes, moment, things } from '../lib/format.js';
import { baseName, crumbs } from '../lib/paths.js';
import { to } from '../lib/route.js';
import { actionButton, ask, linkButton, pagedList, top } from '../parts/page.js';

/** Shows a folder of a snapshot. */
export async function view({ names, query, session, service, signal }) {
  const base = `/locations/${api.part(names.location)}/snapshots/${api.part(names.id)}`;
  const snapshot = await api.get(base, {}, signal);
  const place = { location: names.location, id: snapshot.id, base, mayDownload: ['admin', 'operate'].includes(session.scope), hasZip: service.zip === true };
  const path = query.path ?? '';
  const title = path === '' ? `Snapshot of ${moment(snapshot.time)}` : baseName(path);
  return {
    title,
    content: h(
      'div',
      { class: 'stack' },
      top(title, {
        back: [to(['snapshots', names.location]), `Snapshots at ${names.location}`],
        about: `${snapshot.host}, ${moment(snapshot.time)}, ${things(snapshot.statistics?.files ?? 0, 'file')}, ${bytes(snapshot.statistics?.bytes)}`,
        actions: headActions(place, path, snapshot),
      }),
      trail(place, path, snapshot.sources),
      entriesPart(place, path, signal),
      place.mayDownload && path === '' && !snapshot.pinned && forgetPart(place, snapshot),
    ),
  };
}

function headActions(place, path, snapshot) {
  const { location, id } = place;
  return [
    linkButton(to(['search', location], { at: snapshot.time, in: id }), 'Search in it'),
    linkButton(to(['compare', location], { to: id }), 'Compare'),
    place.mayDownload && path !== '' && folderLinks(place, path),
    linkButton(to(['restore', location, id], { path }), path === '' ? 'Restore' : 'Restore this', 'main'),
  ].filter(Boolean);
}

function folderLinks(place, path) {
  const link = (kind) => h('a', { class: 'button', href: api.address(`${place.base}/${kind}`, { path }), download: true }, `Download as ${kind}`);
  return [place.hasZip && link('zip'), link('tar')].filter(Boolean);
}

function trail({ location, id }, path, sources) {
  const steps = path === '' ? [] : crumbs(path, sources);
  const link = (step, index) => {
    const isLast = index === steps.length - 1;
    return h('li', {}, isLast ? h('span', { 'aria-current': 'location', class: 'path' }, step.name) : h('a', { class: 'path', href: to(['snapshots', location, id], { path: step.path }) }, step.name));
  };
  return h(
    'nav',
    { class: 'crumbs', 'aria-label': 'Folders' },
    h('ol', {}, h('li', {}, h('a', { href: to(['snapshots', location, id]) }, 'All sources')), steps.map(link)),
  );
}

function entriesPart(place, path, signal) {
  const load = async (cursor) => {
    const page = await api.get(`${place.base}/entries`, { path, limit: 200, cursor }, signal);
    // A listing has the folder itself first.
    return { ...page, items: page.items.filter((item) => item.path !== path) };
  };
  const list = h('ul', { class: 'list entries', 'aria-label': 'What is in it' });
  const none = () => h('p', { class: 'quiet' }, 'Nothing is in it.');
  return pagedList(load, (items) => items.map((item) => entryItem(place, item, path === '')), { list, empty: none });
}

function forgetPart({ location, base }, snapshot) {
  const forget = async () => {
    const text = 'What only it has is freed by the next prune; until then larder undelete brings it back.';
    if (!(await ask(`Forget the snapshot of ${moment(snapshot.time)}?`, text, 'Forget it'))) return;
    const run = await api.remove(base);
    window.location.hash = run?.id ? to(['runs', run.id]) : to(['snapshots', location]);
  };
  return h('section', {}, actionButton('Forget this snapshot', forget, { kind: 'grave' }));
}

/** Shows an entry; `isWhole` shows all of its path, as where it was found by a search. */
export function entryItem(place, item, isWhole) {
  const { location, id } = place;
  const isFolder = item.type === 'directory';
  const name = isWhole ? item.path : baseName(item.path);
  const open = isFolder ? h('a', { href: to(['snapshots', location, id], { path: item.path }) }, `${name}${isWhole ? '' : '/'}`) : name;
  const link = (view, text) => h('a', { href: view, 'aria-label': `${text}: ${name}` }, text);
  return h(
    'li',
    {},
    h('div', {}, h('span', { class: 'path' }, open), entryNotes(item)),
    h('div', { class: 'figures' }, !isFolder && h('span', {}, bytes(item.size)), h('span', {}, moment(item.mtime))),
    h(
      'div',
      { class: 'row' },
      download(place, item, name),
      link(to(['versions', location], { path: item.path }), 'Versions'),
      link(to(['restore', location, id], { path: item.path }), 'Restore'),
    ),
  );
}

function entryNotes(item) {
  const said = [
    item.type === 'symlink' && `→ ${item.link_target ?? ''}`,
    !['file', 'directory', 'symlink', 'object'].includes(item.type) && item.type,
    item.unreadable && 'could not be read',
    item.changed_while_read && 'changed while it was read',
  ].filter(Boolean);
  return said.length > 0 && h('span', { class: 'quiet small' }, ` ${said.join(', ')}`);
}

function download(place, item, name) {
  if (!place.mayDownload || !['file', 'object'].includes(item.type) || item.unreadable) return null;
  const href = api.address(`${place.base}/file`, { path: item.path });
  return h('a', { href, download: baseName(item.path), 'aria-label': `Download: ${name}` }, 'Download');
}
