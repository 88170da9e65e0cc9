/**
 * Searches names: in one snapshot, or in all.
 */

import * as api from '../lib/api.js';
import { fill, h } from '../lib/dom.js';
import { moment } from '../lib/format.js';
import { pattern } from '../lib/paths.js';
import { to } from '../lib/route.js';
import { textField } from '../parts/form.js';
import { pagedList, top } from '../parts/page.js';
import { entryItem } from './browse.js';

/** Shows the search. */
export async function view({ names, query, session, signal }) {
  const { location } = names;
  const place = h('div', {});
  let typed = query.text ?? '';
  const field = textField({
    label: 'Name',
    help: 'Any part of a name; * stands for anything: *.odt',
    value: typed,
    change: (text) => {
      typed = text;
    },
  });
  const search = () => fill(place, resultsPart({ location, query, typed, session, signal }));
  const submit = (event) => {
    event.preventDefault();
    if (typed.trim() === '') {
      field.refuse('Type what to look for.');
      return;
    }
    history.replaceState(null, '', to(['search', location], { ...query, text: typed }));
    search();
  };
  if (typed) search();
  const where = query.in ? `in the snapshot of ${moment(query.at)}` : `in all snapshots at ${location}`;
  const back = query.in ? [to(['snapshots', location, query.in]), 'The snapshot'] : [to(['snapshots', location]), `Snapshots at ${location}`];
  return {
    title: `Search ${where}`,
    content: h(
      'div',
      { class: 'stack' },
      top(`Search ${where}`, { back }),
      h('form', { class: 'card stack', role: 'search', submit }, field.node, h('button', { class: 'main' }, 'Search')),
      place,
    ),
  };
}

function resultsPart({ location, query, typed, session, signal }) {
  const path = `/locations/${api.part(location)}`;
  const list = h('ul', { class: 'list entries', 'aria-label': 'Found' });
  const load = async (cursor) => {
    const page = await api.get(`${path}/find`, { pattern: pattern(typed), ignore_case: true, at: query.at, limit: 100, cursor }, signal);
    return { ...page, items: page.items.filter((item) => !query.in || item.snapshot === query.in) };
  };
  const mayDownload = ['admin', 'operate'].includes(session.scope);
  const found = (item) => entryItem({ location, id: item.snapshot, base: `${path}/snapshots/${item.snapshot}`, mayDownload }, item, true);
  return pagedList(load, (items) => items.map(found), { list, empty: () => h('p', {}, 'Nothing is called that.') });
}
