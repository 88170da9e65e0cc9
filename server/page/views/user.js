/**
 * A user: what they may use, and their tokens; or a new one.
 */

import * as api from '../lib/api.js';
import { h } from '../lib/dom.js';
import { bytes } from '../lib/format.js';
import { to } from '../lib/route.js';
import { COUNTS, USER_KINDS, fromUser, mistakes, toBody } from '../lib/users.js';
import { showMistakes, textField, tickField } from '../parts/form.js';
import { actionButton, ask, note, pairs, top } from '../parts/page.js';
import { tokensPart } from '../parts/tokens.js';

/** Shows the form of a user. */
export async function view({ names, signal }) {
  const isNew = names.user === undefined;
  const user = isNew ? {} : await api.get(`/users/${api.part(names.user)}`, {}, signal);
  const title = isNew ? 'Add a user' : names.user;
  return {
    title,
    content: h(
      'div',
      { class: 'stack-large' },
      top(title, { back: ['#/users', 'Users'] }),
      !isNew && usePart(user),
      formPart(user, isNew),
      !isNew && tokensPart(`/users/${api.part(names.user)}/tokens`, signal),
      !isNew && removePart(names.user),
    ),
  };
}

function usePart(user) {
  return h(
    'section',
    { class: 'card stack' },
    h('h2', {}, 'What they have'),
    pairs([
      ['Destinations', String(user.locations)],
      ['Jobs', String(user.jobs)],
      ['Stored, as last measured', bytes(user.bytes)],
      ['Runs under way', String(user.running)],
    ]),
  );
}

function formPart(user, isNew) {
  const values = fromUser(user);
  const fields = fieldsOf(values, isNew);
  const saved = h('p', { class: 'quiet', role: 'status' });
  const save = async () => {
    saved.textContent = '';
    if (!showMistakes(fields, mistakes(values))) return;
    try {
      if (isNew) {
        await api.post('/users', { name: values.name, ...toBody(values) });
        window.location.hash = to(['users', values.name]);
        return;
      }
      await api.patch(`/users/${api.part(user.name)}`, toBody(values));
      saved.textContent = 'Saved. It counts from now on.';
    } catch (problem) {
      if (!fields[problem.field]) throw problem;
      showMistakes(fields, { [problem.field]: problem.message });
    }
  };
  return h(
    'section',
    { class: 'card stack' },
    h('h2', {}, 'What they may use'),
    Object.values(fields).map((field) => field.node),
    h('div', { class: 'row' }, actionButton(isNew ? 'Add the user' : 'Save', save, { kind: 'main' }), saved),
  );
}

function fieldsOf(values, isNew) {
  const text = (key, spec) =>
    textField({
      ...spec,
      value: values[key],
      check: () => mistakes(values)[key] ?? null,
      change: (value) => {
        values[key] = value;
      },
    });
  const tick = (key, spec) =>
    tickField({
      ...spec,
      value: values[key],
      change: (value) => {
        values[key] = value;
      },
    });
  const name = isNew ? { name: text('name', { label: 'Name', required: true, example: 'ann' }) } : {};
  return {
    ...name,
    kinds: kindsField(values),
    paths: text('paths', { label: 'Folders, one a line', help: 'What they back up, where they restore to, and folders as destinations lie below these. Empty: no folder of this machine.', long: true, code: true }),
    postgres: tick('postgres', { label: 'Databases of PostgreSQL' }),
    commands: tick('commands', { label: 'Hooks and other commands', help: 'They are run as the account of the service, and reach all that it reaches, other users’ secrets included.' }),
    bytes_max: text('bytes_max', { label: 'Stored at most', help: 'No backup is begun beyond it. Empty: no such limit.', example: '500G', short: true }),
    ...Object.fromEntries(COUNTS.map(([key, label]) => [key, text(key, { label, short: true })])),
  };
}

function kindsField(values) {
  const wrong = h('p', { class: 'wrong', 'aria-live': 'polite' });
  const tick = ([key, label]) =>
    tickField({
      label,
      value: values.kinds.includes(key),
      change: (isOn) => {
        values.kinds = isOn ? [...values.kinds, key] : values.kinds.filter((kind) => kind !== key);
        wrong.textContent = '';
      },
    }).node;
  const node = h('fieldset', { class: 'field' }, h('legend', {}, 'Destinations may be'), USER_KINDS.map(tick), wrong);
  return { node, refuse: (why) => void (wrong.textContent = why ?? ''), focus: () => node.querySelector('input').focus() };
}

function removePart(name) {
  const remove = async () => {
    const text = 'Their tokens open nothing any more. Their repositories stay as they are, and their settings and passwords are put aside on this machine.';
    if (!(await ask(`Remove ${name}?`, text, 'Remove'))) return;
    await api.remove(`/users/${api.part(name)}`);
    window.location.hash = '#/users';
  };
  return h('section', { class: 'stack' }, h('h2', {}, 'Remove'), note(null, h('p', {}, 'Only while nothing is run for them.')), actionButton(`Remove ${name}`, remove, { kind: 'grave' }));
}
