/**
 * The versions of one path over all snapshots.
 */

import * as api from '../lib/api.js';
import { h } from '../lib/dom.js';
import { bytes, moment, things } from '../lib/format.js';
import { baseName } from '../lib/paths.js';
import { to } from '../lib/route.js';
import { pagedList, top } from '../parts/page.js';

/** Shows the versions. */
export async function view({ names, query, session, signal }) {
  const { location } = names;
  const path = query.path ?? '';
  const mayDownload = ['admin', 'operate'].includes(session.scope);
  const load = (cursor) => api.get(`/locations/${api.part(location)}/history`, { path, cursor }, signal);
  const render = (items) => items.map((version) => h('li', { class: 'item' }, row(location, path, version, mayDownload)));
  const title = `Versions of ${baseName(path)}`;
  return {
    title,
    content: [
      top(title, { back: [to(['snapshots', location]), `Snapshots at ${location}`], about: h('span', { class: 'path' }, path) }),
      pagedList(load, render, { empty: () => h('p', {}, 'No snapshot has it.') }),
    ],
  };
}

function row(location, path, version, mayDownload) {
  const { snapshot, time, last_time: last, snapshots, host, item } = version;
  const base = `/locations/${api.part(location)}/snapshots/${api.part(snapshot)}`;
  const isFile = item && ['file', 'object'].includes(item.type);
  return [
    h(
      'div',
      {},
      h('h2', {}, item ? (isFile ? bytes(item.size) : item.type) : 'Gone'),
      h('p', { class: 'quiet small' }, `From ${moment(time)}${last && last !== time ? ` to ${moment(last)}` : ''}, in ${things(snapshots, 'snapshot')} of ${host}`),
      item && h('p', { class: 'quiet small' }, `Changed ${moment(item.mtime)}`),
    ),
    item &&
      h(
        'div',
        { class: 'aside row' },
        mayDownload && isFile && h('a', { class: 'button slim', href: api.address(`${base}/file`, { path }), download: baseName(path), 'aria-label': `Download the version of ${moment(time)}` }, 'Download'),
        h('a', { class: 'button slim', href: to(['restore', location, snapshot], { path }), 'aria-label': `Restore the version of ${moment(time)}` }, 'Restore'),
      ),
  ];
}
