/**
 * Destinations: where backups go, each with its state.
 */

import * as api from '../lib/api.js';
import { h } from '../lib/dom.js';
import { kindOf } from '../lib/kinds.js';
import { to } from '../lib/route.js';
import { searched } from '../parts/filter.js';
import { state } from '../parts/marks.js';
import { empty, linkButton, pagedList, top } from '../parts/page.js';

/** Shows all destinations. */
export async function view({ query, session, signal }) {
  const isAdmin = session.scope === 'admin';
  const none = (search) =>
    search
      ? empty('No destination is called that', `Nothing has “${search}” in its name or URL.`)
      : empty('No destination yet', 'A destination is where backups go: a disk, a bucket, a server.', isAdmin && linkButton('#/new-destination', 'Add a destination', 'main'));
  const list = (search) =>
    pagedList(
      (cursor) => api.get('/locations', { search, cursor }, signal),
      (items) => items.map((item) => h('li', { class: 'item' }, row(item))),
      { empty: () => none(search) },
    );
  return {
    title: 'Destinations',
    content: [
      top('Destinations', {
        about: 'Where backups go. What lies there is encrypted before it leaves this machine.',
        actions: isAdmin ? [linkButton('#/new-destination', 'Add a destination', 'main')] : [],
      }),
      searched('Search destinations', 'destinations', query.search ?? '', list),
    ],
  };
}

function row(location) {
  return [
    h(
      'div',
      {},
      h('h2', {}, h('a', { href: to(['destinations', location.name]) }, location.name)),
      h('p', { class: 'quiet small' }, kindOf(location.url)?.title ?? 'Unknown', ' · ', h('span', { class: 'path' }, location.url)),
    ),
    h('div', { class: 'aside' }, state(stateOf(location))),
  ];
}

/** Gives the state of a destination. */
export function stateOf({ mistake, has_password: has, validated }) {
  if (mistake) return { tone: 'bad', word: 'mistake in its settings' };
  if (validated && validated.works === false) return { tone: 'bad', word: 'did not work when it was tried' };
  return has ? { tone: 'good', word: 'ready' } : { tone: 'warn', word: 'no repository password yet' };
}
