/**
 * What every view is made of: its top, notes, lists that go on, and questions.
 */

import { announce, fill, h, uniqueId } from '../lib/dom.js';

/**
 * Makes the top of a view.
 *
 * @param {string} title
 * @param {{about?: *, actions?: Node[], back?: [string, string]}} more `back` is an address and what it leads to
 */
export function top(title, { about, actions = [], back } = {}) {
  return h(
    'div',
    { class: 'top' },
    back && h('a', { class: 'back', href: back[0] }, `← ${back[1]}`),
    h('div', { class: 'row spread' }, h('h1', { tabindex: '-1' }, title), actions.length > 0 && h('div', { class: 'row' }, actions)),
    about && h('p', {}, about),
  );
}

/** Makes a link that looks like a button. */
export function linkButton(href, text, kind = '') {
  return h('a', { class: `button ${kind}`, href }, text);
}

/**
 * Makes a button that cannot be pressed again until what it began has ended; what is refused is shown beside it.
 *
 * @param {string} text
 * @param {function(): Promise} action
 * @param {{kind?: string, label?: string}} more `label` is what a screen reader says where the text alone does not tell enough
 */
export function actionButton(text, action, { kind = '', label } = {}) {
  const wrong = h('span', { class: 'wrong', role: 'alert' });
  const button = h('button', { type: 'button', class: kind, 'aria-label': label }, text);
  button.addEventListener('click', async () => {
    button.disabled = true;
    wrong.textContent = '';
    try {
      await action();
    } catch (problem) {
      wrong.textContent = problem.message;
    }
    button.disabled = false;
  });
  return h('span', { class: 'row' }, button, wrong);
}

/** Makes a note; its tone is good, warn, bad or none. */
export function note(tone, ...children) {
  return h('div', { class: `note ${tone ? `${tone}-note` : ''}`, role: tone === 'bad' ? 'alert' : null }, children);
}

/** Shows what was refused. */
export function problemNote(problem) {
  return note('bad', h('p', {}, problem.message));
}

/** Shows that there is nothing yet, and what to do about it. */
export function empty(title, text, ...actions) {
  return h('div', { class: 'empty' }, h('h2', {}, title), h('p', {}, text), h('div', { class: 'row empty-actions' }, actions));
}

/** Shows names with their values; those without a value are left out. */
export function pairs(entries) {
  const known = entries.filter(([, value]) => value !== null && value !== undefined && value !== '');
  return h('dl', { class: 'pairs' }, known.map(([name, value]) => [h('dt', {}, name), h('dd', {}, value)]));
}

/** Shows something that comes later: a line of text until it is there, and what was refused if it never is. */
export function later(promise, render, waiting = 'Loading …') {
  const place = h('div', {}, h('p', { class: 'quiet' }, waiting));
  promise.then(
    (value) => fill(place, render(value)),
    (problem) => problem.name !== 'AbortError' && fill(place, problemNote(problem)),
  );
  return place;
}

/**
 * Shows a list of which more pages may follow.
 *
 * @param {function(string|null): Promise<{items: Array, next: string|null, total?: number}>} load
 * @param {function(Array, number): Node[]} render makes what is put into the list of the items of a page
 * @param {{list?: HTMLElement, empty?: function(): Node, loaded?: function}} more `list` is what the items are put into,
 *   `loaded` is told of all items so far and of the answer
 */
export function pagedList(load, render, { list = h('ul', { class: 'list' }), container = list, empty: none, loaded } = {}) {
  const foot = h('div', { class: 'row' });
  const node = h('div', { class: 'stack' }, container, foot);
  const all = [];
  const show = async (cursor) => {
    fill(foot, h('p', { class: 'quiet' }, 'Loading …'));
    try {
      const page = await load(cursor);
      fill(foot);
      const before = all.length;
      all.push(...page.items);
      list.append(...[render(page.items, before)].flat());
      container.hidden = all.length === 0;
      if (all.length === 0 && none) fill(foot, none());
      if (page.next) fill(foot, moreButton(() => show(page.next), page.total, all.length));
      if (cursor) announce(`${page.items.length} more`);
      loaded?.(all, page);
    } catch (problem) {
      if (problem.name !== 'AbortError') fill(foot, problemNote(problem));
    }
  };
  container.hidden = true;
  show(null);
  return node;
}

function moreButton(action, total, shown) {
  const of = total === undefined || total === null ? '' : ` (${shown} of ${total})`;
  return h('button', { type: 'button', click: action }, `Show more${of}`);
}

/**
 * Asks before something that cannot be taken back.
 *
 * @returns {Promise<boolean>}
 */
export function ask(question, text, yes) {
  return new Promise((resolve) => {
    const dialog = openDialog(question, (close) => [
      h('p', {}, text),
      h(
        'div',
        { class: 'row' },
        h('button', { type: 'button', class: 'grave', click: () => close(true) }, yes),
        h('button', { type: 'button', autofocus: true, click: () => close(false) }, 'Cancel'),
      ),
    ]);
    dialog.addEventListener('close', () => resolve(dialog.returnValue === 'true'));
  });
}

/** Opens a dialog; its content is made by a function that is given one which closes it. */
export function openDialog(title, content) {
  const id = uniqueId('dialog');
  const dialog = h('dialog', { 'aria-labelledby': id, class: 'stack' }, h('h2', { id }, title));
  dialog.append(...[content((value) => dialog.close(String(value)))].flat());
  dialog.addEventListener('close', () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}
