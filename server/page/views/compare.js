/**
 * Compares two snapshots.
 */

import * as api from '../lib/api.js';
import { fill, h } from '../lib/dom.js';
import { bytes, count, moment } from '../lib/format.js';
import { to } from '../lib/route.js';
import { selectField } from '../parts/form.js';
import { empty, linkButton, pagedList, top } from '../parts/page.js';

const CHOICES = 200;
const WORDS = { '+': 'added', '-': 'removed', M: 'changed', T: 'of another type', U: 'in metadata alone' };
const TONES = { '+': 'good', '-': 'bad', M: 'busy', T: 'warn', U: 'plain-state' };

/** Shows what differs between two snapshots. */
export async function view({ names, query, signal }) {
  const { location } = names;
  const path = `/locations/${api.part(location)}`;
  const { items } = await api.get(`${path}/snapshots`, { limit: CHOICES }, signal);
  const back = [to(['snapshots', location]), `Snapshots at ${location}`];
  if (items.length < 2) {
    const text = 'Two snapshots are needed, and there are not that many yet.';
    return { title: 'Compare', content: [top('Compare two snapshots', { back }), empty('Nothing to compare', text, linkButton(back[0], 'Snapshots'))] };
  }
  const to_ = query.to ?? items[0].id;
  const from = query.from ?? olderThan(items, to_);
  const options = choices(items, [from, to_]);
  const go = (change) => {
    window.location.hash = to(['compare', location], { from, to: to_, ...change });
  };
  return {
    title: 'Compare two snapshots',
    content: h(
      'div',
      { class: 'stack' },
      top('Compare two snapshots', { back }),
      h(
        'div',
        { class: 'card grid' },
        selectField({ label: 'From', value: from, options, change: (value) => go({ from: value }) }).node,
        selectField({ label: 'To', value: to_, options, change: (value) => go({ to: value }) }).node,
      ),
      from === to_ ? h('p', {}, 'These are the same.') : changesPart(`${path}/snapshots/${api.part(to_)}/diff`, from, signal),
    ),
  };
}

/** Gives the snapshot of the same sources before another, or any before it. */
function olderThan(items, id) {
  const at = items.findIndex((item) => item.id === id);
  const older = items.slice(at + 1);
  const alike = older.find((item) => at >= 0 && item.host === items[at].host && String(item.sources) === String(items[at].sources));
  return (alike ?? older[0] ?? items[0]).id;
}

function choices(items, chosen) {
  const known = items.map((item) => [item.id, `${moment(item.time)}  ${item.host}  ${item.sources.join(' ')}`]);
  const others = chosen.filter((id) => !items.some((item) => item.id === id)).map((id) => [id, id.slice(0, 8)]);
  return [...known, ...others];
}

function changesPart(path, from, signal) {
  const body = h('tbody', {});
  const summary = h('div', {});
  const columns = h('tr', {}, ['Change', 'Path'].map((name) => h('th', { scope: 'col' }, name)), h('th', { scope: 'col', class: 'number' }, 'Size'));
  const container = h('div', { class: 'wide', tabindex: '0', role: 'region', 'aria-label': 'Changes' }, h('table', {}, h('thead', {}, columns), body));
  const row = ({ change, path: where, old, new: fresh }) =>
    h(
      'tr',
      {},
      h('td', {}, h('span', { class: `mark ${TONES[change] ?? ''}`, 'aria-hidden': 'true' }, change), ' ', WORDS[change] ?? change),
      h('td', { class: 'path' }, where),
      h('td', { class: 'number' }, sizes(old, fresh)),
    );
  const loaded = (_, page) => page.summary && fill(summary, summaryPart(page.summary));
  const none = () => h('p', {}, 'Nothing differs.');
  return [summary, pagedList((cursor) => api.get(path, { from, limit: 200, cursor }, signal), (items) => items.map(row), { list: body, container, empty: none, loaded })];
}

function sizes(old, fresh) {
  if (old && fresh && old.size !== fresh.size) return `${bytes(old.size)} → ${bytes(fresh.size)}`;
  const { type, size } = fresh ?? old ?? {};
  return type === 'directory' ? '' : bytes(size);
}

function summaryPart({ added, removed, content_changed: changed, metadata_changed: meta, bytes_added: more, bytes_removed: less }) {
  return h('p', {}, `${count(added)} added, ${count(removed)} removed, ${count(changed)} changed, ${count(meta)} in metadata alone. New and changed files hold ${bytes(more)}, those gone or replaced held ${bytes(less)}.`);
}
