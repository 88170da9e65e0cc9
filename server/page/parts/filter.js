/**
 * What narrows a list down.
 */

import { fill, h, uniqueId } from '../lib/dom.js';
import { to } from '../lib/route.js';

const PAUSE_MS = 300;

/**
 * Makes a field that searches a list, and the list below it.
 *
 * @param {string} label
 * @param {string} path the view's address, which remembers what was looked for
 * @param {string} value
 * @param {function(string): Node} list makes the list of what is found
 */
export function searched(label, path, value, list) {
  const id = uniqueId('search');
  const control = h('input', { id, type: 'search', class: 'search', placeholder: label, value, autocomplete: 'off' });
  const place = h('div', {}, list(value));
  let timer = null;
  let last = value;
  const go = () => {
    clearTimeout(timer);
    const search = control.value.trim();
    if (search === last) return;
    last = search;
    history.replaceState(null, '', to(path, { search }));
    fill(place, list(search));
  };
  control.addEventListener('input', () => {
    clearTimeout(timer);
    timer = setTimeout(go, PAUSE_MS);
  });
  const submit = (event) => {
    event.preventDefault();
    go();
  };
  return h('div', { class: 'stack' }, h('form', { role: 'search', submit }, h('label', { for: id, class: 'unseen' }, label), control), place);
}

/** Makes a choice that becomes a part of the address. */
export function filterSelect(label, value, options, href) {
  const id = uniqueId('filter');
  const control = h('select', { id }, options.map(([key, text]) => h('option', { value: key }, text)));
  control.value = value;
  control.addEventListener('change', () => {
    location.hash = href(control.value);
  });
  return h('div', { class: 'row' }, h('label', { for: id }, label), h('div', {}, control));
}
