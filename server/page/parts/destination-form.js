/**
 * The form of a destination: its kind, what that kind asks for, a validation, and saving.
 */

import * as api from '../lib/api.js';
import * as check from '../lib/check.js';
import { fill, h } from '../lib/dom.js';
import {
  KINDS, dropboxAddress, emptyValues, fromLocation, isAsked, isSecret, kindById, mistakes, refuse, toLocation,
} from '../lib/kinds.js';
import { choiceField, selectField, showMistakes, textField, tickField } from './form.js';
import { actionButton, note } from './page.js';
import { validation } from './validation.js';

const DROPBOX_EXCHANGE = 'curl https://api.dropboxapi.com/oauth2/token -u APP_KEY:APP_SECRET -d grant_type=authorization_code -d code=THE_CODE';

/**
 * Makes the form.
 *
 * @param {object} options
 * @param {object|null} options.location the one that is edited, as the API gives it; null for a new one
 * @param {object} options.service as /service gives it
 * @param {AbortSignal} options.signal
 * @param {function(object)} options.saved is given the location once it is saved
 * @param {string} [options.name] what a new one is called at first
 */
export function destinationForm({ location, service, signal, saved, name = '' }) {
  const known = location ? fromLocation(location, keptOf(location)) : null;
  const form = {
    location,
    service,
    signal,
    saved,
    kept: location ? keptOf(location) : [],
    name: location?.name ?? name,
    kind: known?.kind ?? KINDS[0],
    values: known?.values ?? emptyValues(KINDS[0]),
    /** What was validated last, so that saving something else asks again. */
    validated: null,
    fields: {},
  };
  return shown(form);
}

/** Gives the keys of the secrets that the server has: they come masked, or as a file or command that gives them. */
function keptOf({ settings = {} }) {
  const isMasked = ([, value]) => /^\*+$/.test(String(value));
  const masked = Object.entries(settings).filter(isMasked).map(([key]) => key);
  const given = Object.keys(settings).filter((key) => /-(file|command)$/.test(key));
  return [...masked, ...given.map((key) => key.replace(/-(file|command)$/, ''))];
}

function shown(form) {
  const asked = h('div', {});
  const steps = h('div', {});
  const foot = h('div', {});
  const nameField = textField({
    label: 'Name',
    help: 'What you call it, such as nas or cloud.',
    value: form.name,
    required: true,
    check: (text) => (text === '' ? 'A name is needed.' : check.name(text)),
    change: (text) => {
      form.name = text.trim();
    },
  });
  const kinds = choiceField({
    label: 'Kind of storage',
    value: form.kind.id,
    options: KINDS.map(({ id, title, about }) => [id, title, about]),
    change: (id) => {
      form.kind = kindById(id);
      form.values = emptyValues(form.kind);
      form.kept = [];
      refresh();
    },
  });
  const refresh = () => {
    fill(asked, askedFields(form, nameField, refreshChoices));
    changed();
  };
  // Other fields are asked now; the one that was chosen keeps the focus.
  const refreshChoices = (key) => {
    refresh();
    form.fields[key]?.focus();
  };
  const changed = () => fill(foot, footOf(form, steps, changed));
  form.changed = () => {
    if (form.validated !== null && form.validated !== fingerprint(form)) {
      form.validated = null;
      changed();
    }
  };
  refresh();
  return h('div', { class: 'stack' }, !form.location && kinds.node, asked, steps, foot);
}

function askedFields(form, nameField, refreshChoices) {
  form.fields = { name: nameField };
  const hasNotes = form.service.notes === true;
  const fields = form.kind.fields.filter((field) => isAsked(field, form.values) && (hasNotes || !field.note));
  const made = (field) => {
    const part = fieldOf(form, field, refreshChoices);
    form.fields[field.key] = part;
    return part.node;
  };
  const usual = fields.filter((field) => !field.more).map(made);
  const seldom = fields.filter((field) => field.more).map(made);
  return h(
    'div',
    { class: 'card' },
    nameField.node,
    usual.length > 0 && h('div', { class: 'field' }, usual),
    form.kind.id === 'dropbox' && dropboxGuide(form),
    seldom.length > 0 && h('details', {}, h('summary', {}, 'More settings'), seldom),
  );
}

function fieldOf(form, field, refreshChoices) {
  const change = (value) => {
    form.values[field.key] = value;
    form.changed();
  };
  const { label, help, example, required } = field;
  const value = form.values[field.key];
  if (field.type === 'flag') return tickField({ label, help, value: value === true, change });
  if (field.type === 'choice') {
    const choose = (chosen) => {
      change(chosen);
      if (field.asks) refreshChoices(field.key);
    };
    return selectField({ label, help, value, options: field.options, change: choose });
  }
  return textField({
    label,
    help,
    example,
    required,
    value,
    secret: isSecret(field),
    long: field.type === 'long' || field.type === 'long-secret',
    kept: isSecret(field) && form.kept.includes(field.key) ? 'Kept as it is; type to change it' : undefined,
    check: (text) => refuse(field, text, form.kept),
    change,
  });
}

/** Leads from an app key to a refresh token. */
function dropboxGuide(form) {
  const link = h('a', { target: '_blank', rel: 'noreferrer' }, 'Open Dropbox and allow the access');
  const keyNow = () => String(form.values['app-key'] ?? '').trim();
  const update = () => {
    if (keyNow()) link.setAttribute('href', dropboxAddress(keyNow()));
    else link.removeAttribute('href');
  };
  update();
  form.fields['app-key'].node.addEventListener('input', update);
  const isHelped = form.service.dropbox === true;
  let code = '';
  const field = textField({
    label: 'Code that Dropbox shows',
    check: (text) => (/\s/.test(text.trim()) ? 'A code has no spaces in it.' : null),
    change: (text) => {
      code = text.trim();
    },
  });
  const exchange = async () => {
    if (!keyNow() || !code) throw new Error('The app key and the code are needed.');
    const secret = form.values['app-secret'] || undefined;
    const answer = await api.post('/dropbox/token', { app_key: keyNow(), app_secret: secret, code });
    form.fields['refresh-token'].put(answer.refresh_token);
  };
  const steps = [
    ['At ', h('a', { href: 'https://www.dropbox.com/developers/apps', target: '_blank', rel: 'noreferrer' }, 'dropbox.com/developers/apps'), ' make an app: Scoped access, App folder, any name.'],
    'On its tab Permissions tick files.metadata.read, files.metadata.write, files.content.read and files.content.write; Submit.',
    'From its tab Settings copy the App key and the App secret into the fields above.',
    [link, '; you are shown a code. It can be used once, within ten minutes.'],
    isHelped ? 'Exchange it here.' : 'Exchange it on any machine; refresh_token in the answer goes into the field above.',
  ];
  return h(
    'details',
    { open: !form.location },
    h('summary', {}, 'How to get the refresh token'),
    h('ol', { class: 'stack numbered' }, steps.map((step) => h('li', {}, step))),
    isHelped
      ? h('div', { class: 'stack fields' }, field.node, actionButton('Exchange the code for a refresh token', exchange))
      : h('pre', { class: 'block', tabindex: '0', 'aria-label': 'The command that exchanges the code' }, DROPBOX_EXCHANGE),
  );
}

function footOf(form, steps, changed) {
  const isFolderLike = ['folder', 'sftp', 'ftp', 'webdav', 'dropbox'].includes(form.kind.id);
  const isReady = form.validated !== null;
  const validate = async () => {
    // What an attempt before this one found counts no more.
    fill(steps);
    if (!isSound(form)) return;
    const print = fingerprint(form);
    const run = await api.start(...validationCall(form, isFolderLike));
    await new Promise((resolve) => {
      const done = (works) => {
        form.validated = works && print === fingerprint(form) ? print : null;
        changed();
        steps.scrollIntoView({ block: 'nearest' });
        resolve();
      };
      fill(steps, h('section', { class: 'card', 'aria-label': 'Validation' }, validation(run.id, form.signal, done)));
      steps.scrollIntoView({ block: 'nearest' });
    });
  };
  const save = async () => {
    if (isSound(form)) form.saved(await saveCall(form));
  };
  const saveButton = isReady
    ? actionButton('Save', save, { kind: 'main' })
    : h('span', { class: 'row' }, h('button', { type: 'button', disabled: true, 'aria-describedby': 'save-help' }, 'Save'));
  return h(
    'div',
    { class: 'actions' },
    actionButton('Validate', validate, { kind: isReady ? '' : 'main' }),
    saveButton,
    !isReady && actionButton('Save anyway', save, { kind: 'plain' }),
    !isReady && h('p', { class: 'help', id: 'save-help' }, 'Save needs a validation that succeeded.'),
  );
}

function isSound(form) {
  const found = mistakes(form.kind, form.values, form.kept);
  const why = form.name === '' ? 'A name is needed.' : check.name(form.name);
  return showMistakes(form.fields, why ? { name: why, ...found } : found);
}

/** Tells what was validated from what is typed now. */
function fingerprint(form) {
  return JSON.stringify([form.kind.id, toLocation(form.kind, form.values)]);
}

/** Gives the call that tries out what is typed; secrets that were left empty are those of the location that is edited. */
function validationCall(form, create) {
  const { notes, ...typed } = body(form);
  const kept = form.location ? { keep_secrets_of: form.location.name } : {};
  return ['/validate', { ...typed, ...kept, create }];
}

async function saveCall(form) {
  const typed = body(form);
  try {
    if (!form.location) return await api.post('/locations', typed);
    return await api.patch(`/locations/${api.part(form.location.name)}`, typed);
  } catch (problem) {
    beside(form, problem);
    throw problem;
  }
}

function body(form) {
  const { url, settings, secrets, notes, unset } = toLocation(form.kind, form.values);
  const known = Object.keys(form.location?.settings ?? {});
  // A secret may also stand there as the file or command that gives it.
  const ways = (key) => [key, `${key}-file`, `${key}-command`];
  const given = unset.flatMap(ways).filter((key) => known.includes(key));
  return {
    name: form.name,
    url,
    settings,
    secrets,
    ...(given.length > 0 ? { unset: given } : {}),
    ...(form.service.notes === true ? { notes } : {}),
  };
}

/** Shows what the server refused beside the field that it means. */
function beside(form, problem) {
  if (!problem.field) return;
  const key = problem.field.replace(/^(settings|secrets|notes)\./, '');
  const inUrl = form.kind.fields.find((field) => field.inUrl)?.key;
  const field = form.fields[key === 'url' ? inUrl : key];
  field?.refuse(problem.message);
  field?.focus();
}

/** Asks for the password of a repository: of one that is made now, or of one that is there. */
export function repositoryForm({ location, done }) {
  const values = { password: '', again: '', mode: 'new' };
  const place = h('div', {});
  const mode = choiceField({
    label: 'Repository',
    value: values.mode,
    options: [
      ['new', 'Make a new one', 'There is none at this place yet'],
      ['there', 'Use the one that is there', 'Larder made it before, here or on another machine'],
    ],
    change: (chosen) => {
      values.mode = chosen;
      refresh();
    },
  });
  const refresh = () => fill(place, passwordFields(location, values, done));
  refresh();
  return h('div', { class: 'stack' }, mode.node, place);
}

function passwordFields(location, values, done) {
  const isNew = values.mode === 'new';
  const weak = h('p', { class: 'help', 'aria-live': 'polite' });
  const first = textField({
    label: 'Password of the repository',
    help: isNew ? 'It encrypts everything. The server keeps it for the jobs; keep it elsewhere as well.' : null,
    secret: true,
    required: true,
    check: (text) => (text === '' ? 'A password is needed.' : null),
    change: (text) => {
      values.password = text;
      weak.textContent = isNew && text !== '' ? (check.weakness(text) ?? '') : '';
    },
  });
  const second = textField({
    label: 'The same again',
    secret: true,
    required: true,
    check: (text) => check.same(values.password, text),
    change: (text) => {
      values.again = text;
    },
  });
  const path = `/locations/${api.part(location)}`;
  const make = async () => {
    const reasons = {};
    if (values.password === '') reasons.first = 'A password is needed.';
    else if (isNew && values.again !== values.password) reasons.second = check.same(values.password, values.again);
    if (!showMistakes({ first, second }, reasons)) return;
    const { password } = values;
    if (isNew) await api.post(`${path}/repository`, { password });
    else await api.put(`${path}/password`, { password });
    done();
  };
  return h(
    'div',
    { class: 'card stack' },
    first.node,
    weak,
    isNew && second.node,
    isNew &&
      note('warn', h('p', {}, 'Without this password nobody can read the backups, you included. Write it down now, somewhere that does not burn with this machine.')),
    actionButton(isNew ? 'Make the repository' : 'Open it', make, { kind: 'main' }),
  );
}
