/**
 * Users: who has destinations and jobs of their own, for the administrator.
 */

import * as api from '../lib/api.js';
import { h } from '../lib/dom.js';
import { to } from '../lib/route.js';
import { USER_KINDS, fromBytes } from '../lib/users.js';
import { searched } from '../parts/filter.js';
import { empty, linkButton, pagedList, top } from '../parts/page.js';

/** Shows all users. */
export async function view({ query, signal }) {
  const add = () => linkButton('#/new-user', 'Add a user', 'main');
  const none = (search) =>
    search
      ? empty('No user is called that', `Nobody has “${search}” in their name.`)
      : empty('No user yet', 'A user has destinations, jobs and snapshots of their own, and sees nothing of yours or of another’s.', add());
  const list = (search) =>
    pagedList(
      (cursor) => api.get('/users', { search, cursor }, signal),
      (items) => items.map((item) => h('li', { class: 'item' }, row(item))),
      { empty: () => none(search) },
    );
  return {
    title: 'Users',
    content: [
      top('Users', { about: 'Each sees what is theirs, and nothing else.', actions: [add()] }),
      searched('Search users', 'users', query.search ?? '', list),
    ],
  };
}

function row({ name, kinds, paths, bytes_max: bytes }) {
  const words = USER_KINDS.filter(([key]) => kinds.includes(key)).map(([, word]) => word);
  const limit = bytes === null ? '' : ` · ${fromBytes(bytes)} at most`;
  return h(
    'div',
    {},
    h('h2', {}, h('a', { href: to(['users', name]) }, name)),
    h('p', { class: 'quiet small' }, `${words.join(', ')}${limit}`),
    paths.length > 0 && h('p', { class: 'path small' }, paths.join(', ')),
  );
}
