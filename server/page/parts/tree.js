/**
 * A tree of the machine's folders, from which some are chosen.
 */

import * as api from '../lib/api.js';
import { announce, fill, h } from '../lib/dom.js';
import { bytes } from '../lib/format.js';
import { baseName } from '../lib/paths.js';
import { arrow } from './marks.js';

const PAGE = 200;

/**
 * Shows the tree.
 *
 * @param {{roots: string[], signal: AbortSignal, files?: boolean, choose: function(string, boolean), isChosen: function(string): boolean, single?: boolean}} options
 *   `choose` is told of each path and whether it is chosen now; `files` shows files besides folders
 */
export function folderTree(options) {
  const many = options.roots.length > 1;
  const box = h('div', { class: 'tree', role: 'group', 'aria-label': 'Folders' });
  const list = h('ul', {}, options.roots.map((path) => branch({ path, name: path, type: 'directory' }, options, !many)));
  box.append(list);
  return box;
}

function branch(item, options, isOpen = false) {
  const below = h('ul', { hidden: true });
  const row = h('div', { class: 'leaf' }, folding(item, below, options, isOpen), chooser(item, options));
  return h('li', {}, row, below);
}

function chooser({ path, name, type, size }, { choose, isChosen, single }) {
  const control = h('input', { type: single ? 'radio' : 'checkbox', name: single ? 'folder' : null, checked: isChosen(path), 'data-path': path });
  control.addEventListener('change', () => choose(path, control.checked));
  return h('label', {}, control, h('span', {}, name, type === 'directory' ? '' : h('span', { class: 'quiet small' }, ` ${bytes(size)}`)));
}

function folding({ path, name, type }, below, options, isOpen) {
  if (type !== 'directory') return h('span', { class: 'no-fold' });
  const button = h('button', { type: 'button', class: 'fold', 'aria-expanded': 'false', 'aria-label': `What is in ${name}` }, arrow());
  let isLoaded = false;
  const toggle = async () => {
    const open = below.hidden;
    below.hidden = !open;
    button.setAttribute('aria-expanded', String(open));
    if (!open || isLoaded) return;
    isLoaded = true;
    await load(path, below, options);
  };
  button.addEventListener('click', toggle);
  if (isOpen) toggle();
  return button;
}

async function load(path, below, options, cursor = null) {
  const waiting = h('li', { class: 'quiet' }, 'Loading …');
  below.append(waiting);
  try {
    const page = await api.get('/paths', { path, limit: PAGE, cursor }, options.signal);
    waiting.remove();
    const wanted = page.items.filter(({ type }) => type === 'directory' || (options.files && type === 'file'));
    below.append(...wanted.map((item) => branch({ ...item, name: item.name || baseName(item.path) }, options)));
    if (page.next) below.append(goesOn(() => load(path, below, options, page.next)));
    if (below.childElementCount === 0) below.append(h('li', { class: 'quiet small' }, options.files ? 'Nothing in it' : 'No folders in it'));
    announce(`${wanted.length} in ${path}`);
  } catch (problem) {
    if (problem.name !== 'AbortError') fill(waiting, h('span', { class: 'bad' }, problem.message));
  }
}

function goesOn(action) {
  const item = h('li', {});
  const button = h('button', { type: 'button', class: 'plain slim' }, 'Show more');
  button.addEventListener('click', () => {
    item.remove();
    action();
  });
  item.append(button);
  return item;
}
