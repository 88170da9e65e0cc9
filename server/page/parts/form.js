/**
 * Fields of forms: each has a label, says what it is for, and says why what is typed is wrong, as it is typed.
 *
 * Every maker gives `{ node, refuse, focus }`: `refuse` shows a reason beside the field, or takes it away with null.
 */

import { h, uniqueId } from '../lib/dom.js';

/**
 * Makes a field for text.
 *
 * @param {object} spec
 * @param {string} spec.label
 * @param {string} [spec.value]
 * @param {function(string)} spec.change is called as it is typed
 * @param {function(string): string|null} [spec.check] gives the reason against a text
 * @param {boolean} [spec.long] several lines
 * @param {boolean} [spec.secret] not shown while it is typed
 * @param {string} [spec.kept] what stands in the empty field in place of the example, as a secret is kept
 */
export function textField(spec) {
  const id = uniqueId('field');
  const wrong = h('p', { class: 'wrong', id: `${id}-wrong`, 'aria-live': 'polite' });
  const control = h(spec.long ? 'textarea' : 'input', {
    id,
    type: spec.long ? null : spec.secret ? 'password' : (spec.type ?? 'text'),
    class: `${spec.short ? 'short' : ''} ${spec.code ? 'code' : ''}`,
    value: spec.value ?? '',
    placeholder: spec.kept ?? spec.example,
    'aria-describedby': `${spec.help ? `${id}-help ` : ''}${id}-wrong`,
    'aria-required': spec.required ? 'true' : null,
    autocomplete: spec.autocomplete ?? (spec.secret ? 'new-password' : 'off'),
    autocapitalize: 'none',
    spellcheck: 'false',
    list: spec.list,
  });
  const refuse = (why) => {
    wrong.textContent = why ?? '';
    if (why) control.setAttribute('aria-invalid', 'true');
    else control.removeAttribute('aria-invalid');
  };
  const judge = () => refuse(spec.check?.(control.value) ?? null);
  control.addEventListener('input', () => {
    spec.change(control.value);
    judge();
  });
  // Nobody is told off for a field that was not come to yet, nor for one that is still empty.
  control.addEventListener('blur', () => control.value !== '' && judge());
  const node = h(
    'div',
    { class: 'field' },
    h('label', { for: id }, spec.label, spec.required === false || spec.required === undefined ? null : h('span', { class: 'unseen' }, ' (needed)')),
    spec.help && h('p', { class: 'help', id: `${id}-help` }, spec.help),
    spec.secret && !spec.long ? h('div', { class: 'secret' }, control, showButton(control, spec.label)) : control,
    wrong,
  );
  const put = (value) => {
    control.value = value;
    spec.change(value);
    judge();
  };
  return { node, refuse, put, focus: () => control.focus(), value: () => control.value };
}

function showButton(control, label) {
  const button = h('button', { type: 'button', 'aria-label': `Show: ${label}` }, 'Show');
  button.addEventListener('click', () => {
    const shown = control.type === 'password';
    control.type = shown ? 'text' : 'password';
    button.textContent = shown ? 'Hide' : 'Show';
    button.setAttribute('aria-label', `${button.textContent}: ${label}`);
  });
  return button;
}

/** Makes a field that chooses one of some values. */
export function selectField({ label, help, value, options, change }) {
  const id = uniqueId('field');
  const wrong = h('p', { class: 'wrong', id: `${id}-wrong`, 'aria-live': 'polite' });
  const control = h(
    'select',
    { id, 'aria-describedby': `${help ? `${id}-help ` : ''}${id}-wrong` },
    options.map(([key, text]) => h('option', { value: key }, text)),
  );
  control.value = value;
  control.addEventListener('change', () => change(control.value));
  const node = h(
    'div',
    { class: 'field' },
    h('label', { for: id }, label),
    help && h('p', { class: 'help', id: `${id}-help` }, help),
    control,
    wrong,
  );
  return { node, refuse: (why) => void (wrong.textContent = why ?? ''), focus: () => control.focus(), value: () => control.value };
}

/** Makes a switch. */
export function tickField({ label, help, value, change }) {
  const control = h('input', { type: 'checkbox', checked: value });
  control.addEventListener('change', () => change(control.checked));
  const node = h('div', { class: 'field' }, h('label', { class: 'tick' }, control, h('span', {}, label, help && h('span', { class: 'help' }, help))));
  return { node, refuse: () => {}, focus: () => control.focus() };
}

/** Makes a choice of which every option is explained. */
export function choiceField({ label, value, options, change }) {
  const name = uniqueId('choice');
  const wrong = h('p', { class: 'wrong', 'aria-live': 'polite' });
  const option = ([key, title, about]) => {
    const control = h('input', { type: 'radio', name, value: key, checked: key === value });
    control.addEventListener('change', () => control.checked && change(key));
    return h('label', { class: 'choice' }, control, h('b', {}, title), about && h('span', {}, about));
  };
  const node = h('fieldset', { class: 'field' }, h('legend', {}, label), h('div', { class: 'choices' }, options.map(option)), wrong);
  return { node, refuse: (why) => void (wrong.textContent = why ?? ''), focus: () => node.querySelector('input:checked, input')?.focus() };
}

/**
 * Shows the reasons beside their fields, and goes to the first of these that is wrong.
 *
 * @param {Object<string, {refuse: function, focus: function}>} fields
 * @param {Object<string, string>} reasons
 * @returns {boolean} whether there is none
 */
export function showMistakes(fields, reasons) {
  for (const [key, field] of Object.entries(fields)) field.refuse(reasons[key] ?? null);
  const first = Object.keys(fields).find((key) => reasons[key]);
  if (first) {
    const folded = fields[first].node.closest('details');
    if (folded) folded.open = true;
    fields[first].focus();
  }
  return Object.keys(reasons).length === 0;
}
