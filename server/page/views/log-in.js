/**
 * The log-in: the token that `larder serve` printed.
 */

import * as api from '../lib/api.js';
import { h } from '../lib/dom.js';
import { textField } from '../parts/form.js';
import { top } from '../parts/page.js';

/** Shows the log-in; `entered` is given the session. */
export function logIn(entered) {
  let token = '';
  const field = textField({
    label: 'Token',
    help: 'It begins with larder_ and was printed when larder serve started for the first time. An administrator can make you another one.',
    secret: true,
    code: true,
    required: true,
    autocomplete: 'current-password',
    change: (text) => {
      token = text.trim();
    },
  });
  const button = h('button', { class: 'main' }, 'Log in');
  const submit = async (event) => {
    event.preventDefault();
    const why = refuse(token);
    if (why) {
      field.refuse(why);
      return field.focus();
    }
    button.disabled = true;
    try {
      await entered(await api.logIn(token));
    } catch (problem) {
      field.refuse(problem.message);
      field.focus();
    }
    button.disabled = false;
  };
  const form = h('form', { class: 'card stack', submit, novalidate: true }, field.node, button);
  return {
    title: 'Log in',
    content: [top('Log in to Larder', { about: 'Backups, encrypted and deduplicated, on any storage.' }), form],
  };
}

function refuse(token) {
  if (token === '') return 'Paste the token.';
  return token.startsWith('larder_') ? null : 'This is no token of Larder: those begin with larder_.';
}
