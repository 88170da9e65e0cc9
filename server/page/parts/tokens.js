/**
 * Tokens: one's own, and those that an administrator makes for a user.
 */

import * as api from '../lib/api.js';
import { fill, h } from '../lib/dom.js';
import { moment } from '../lib/format.js';
import { selectField, textField } from './form.js';
import { actionButton, ask, openDialog, pagedList } from './page.js';

const SCOPES = [
  ['read-only', 'Read only: sees everything, changes nothing'],
  ['backup-only', 'Backup only: runs and cancels jobs'],
  ['operate', 'Operate: restores, checks, prunes, and runs jobs'],
  ['admin', 'Administrator: everything'],
];

/** Shows the tokens at a path of the API, and makes and revokes them. */
export function tokensPart(path, signal) {
  const place = h('div', {});
  const refresh = () => fill(place, tokenList(path, signal, refresh));
  refresh();
  return h('section', { class: 'stack' }, h('h2', {}, 'Tokens'), h('p', { class: 'quiet' }, 'Each opens the page and the API as far as its scope goes.'), place, tokenForm(path, refresh));
}

function tokenList(path, signal, refresh) {
  const revoke = async (token) => {
    if (!(await ask(`Revoke ${token.name}?`, 'Whoever uses it is locked out at once.', 'Revoke'))) return;
    await api.remove(`${path}/${api.part(token.id)}`);
    refresh();
  };
  const item = (token) =>
    h(
      'li',
      { class: 'item' },
      h('div', {}, h('h3', {}, token.name), h('p', { class: 'quiet small' }, `${token.scope} · made ${moment(token.created)}${token.expires ? ` · ends ${moment(token.expires)}` : ''}`)),
      h('div', { class: 'aside' }, actionButton('Revoke', () => revoke(token), { kind: 'slim', label: `Revoke ${token.name}` })),
    );
  return pagedList((cursor) => api.get(path, { cursor }, signal), (items) => items.map(item));
}

function tokenForm(path, refresh) {
  const values = { name: '', scope: 'read-only', expires: '' };
  const name = textField({
    label: 'Name',
    help: 'Who or what uses it.',
    example: 'grafana',
    required: true,
    check: (text) => (text.trim() === '' ? 'A name is needed.' : null),
    change: (text) => {
      values.name = text.trim();
    },
  });
  const scope = selectField({
    label: 'Scope',
    value: values.scope,
    options: SCOPES,
    change: (value) => {
      values.scope = value;
    },
  });
  const expires = textField({
    label: 'Last day',
    help: 'Empty: it does not end by itself.',
    type: 'date',
    short: false,
    change: (text) => {
      values.expires = text;
    },
  });
  const make = async () => {
    if (values.name === '') {
      name.refuse('A name is needed.');
      return name.focus();
    }
    const ends = values.expires ? { expires: `${values.expires}T23:59:59Z` } : {};
    const made = await api.post(path, { name: values.name, scope: values.scope, ...ends });
    showToken(made);
    return refresh();
  };
  return h(
    'details',
    { class: 'card' },
    h('summary', {}, 'Make a token'),
    h('div', { class: 'stack' }, name.node, scope.node, expires.node, actionButton('Make it', make, { kind: 'main' })),
  );
}

/** Shows a token, this once. */
export function showToken({ name, token }) {
  openDialog(`The token ${name}`, (close) => [
    h('p', {}, 'It is shown this once. Only a hash of it is kept.'),
    h('p', { class: 'token', tabindex: '0' }, token),
    h(
      'div',
      { class: 'row' },
      navigator.clipboard && actionButton('Copy', () => navigator.clipboard.writeText(token), { kind: 'main' }),
      h('button', { type: 'button', click: () => close('') }, 'I have it'),
    ),
  ]);
}
