/**
 * The form of a job: what, where, when, for how long.
 */

import * as api from '../lib/api.js';
import * as check from '../lib/check.js';
import { fill, h } from '../lib/dom.js';
import { bytes, moment, things, weekday } from '../lib/format.js';
import { emptyValues, fromJob, mistakes, partOf, refuseZone, toSettings } from '../lib/jobs.js';
import { coveredBy } from '../lib/paths.js';
import * as retention from '../lib/retention.js';
import * as schedule from '../lib/schedule.js';
import { choiceField, selectField, showMistakes, textField, tickField } from './form.js';
import { actionButton, note } from './page.js';
import { folderTree } from './tree.js';

/** Milliseconds without typing after which the server is asked. */
const PAUSE_MS = 400;

/**
 * Makes the form.
 *
 * @param {object} options
 * @param {object|null} options.job the one that is edited, as the API gives it; null for a new one
 * @param {object[]} options.locations
 * @param {object} options.service
 * @param {AbortSignal} options.signal
 * @param {function(object)} options.saved is given the job once it is saved
 * @param {string} [options.label] what the button that saves says
 */
export function jobForm({ job, locations, service, signal, saved, label = 'Save' }) {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || 'UTC';
  const form = {
    job,
    service,
    signal,
    zone,
    values: job ? fromJob(job, zone) : { ...emptyValues(zone), location: locations.length === 1 ? locations[0].name : '' },
    fields: {},
    changed: () => {},
  };
  const preview = previewOf(form);
  form.changed = preview.later;
  const sections = [
    section('What is backed up', whatPart(form)),
    section('Where it goes', wherePart(form, locations)),
    section('When', whenPart(form), preview.node),
    section('For how long', keepPart(form)),
    section('Upkeep', upkeepPart(form)),
    section('Limits and notices', noticePart(form)),
  ];
  const save = async () => {
    if (!showMistakes(form.fields, mistakes(form.values, { isNew: !job }))) return;
    saved(await send(form, false));
  };
  const nameField = job ? null : text(form, 'name', { label: 'Name of the job', help: 'Such as photos or nightly.', required: true, check: (typed) => (typed === '' ? 'A name is needed.' : check.name(typed)) });
  preview.now();
  const foot = h('div', { class: 'actions' }, actionButton(label, save, { kind: 'main' }));
  return h('div', { class: 'stack' }, nameField && h('div', { class: 'card' }, nameField), sections, foot);
}

function section(title, ...content) {
  return h('section', { class: 'card stack' }, h('h2', {}, title), content);
}

function text(form, key, spec) {
  const part = textField({
    ...spec,
    value: spec.value ?? form.values[key],
    change: (typed) => {
      form.values[key] = key === 'exclude' ? typed : typed.trim();
      form.changed();
    },
  });
  form.fields[key] = part;
  return part.node;
}

function tick(form, key, label, help) {
  const change = (value) => {
    form.values[key] = value;
    form.changed();
  };
  const part = tickField({ label, help, value: form.values[key], change });
  return part.node;
}

function whatPart(form) {
  const { values } = form;
  const chosen = h('ul', { class: 'chosen' });
  const wrong = h('p', { class: 'wrong', 'aria-live': 'polite' });
  const size = h('div', {});
  const roots = form.service.allow_paths?.length > 0 ? form.service.allow_paths : ['/'];
  const choose = (path, isOn) => {
    values.sources = values.sources.filter((one) => one !== path);
    if (isOn) values.sources.push(path);
    refresh();
  };
  const tree = folderTree({ roots, signal: form.signal, files: true, choose, isChosen: (path) => values.sources.includes(path) });
  const refresh = () => {
    wrong.textContent = '';
    fill(chosen, values.sources.map((path) => chosenItem(path, values.sources, () => drop(path))));
    form.changed();
  };
  const drop = (path) => {
    choose(path, false);
    for (const control of tree.querySelectorAll('input')) {
      if (control.dataset.path === path) control.checked = false;
    }
  };
  form.fields.sources = {
    node: chosen,
    refuse: (why) => void (wrong.textContent = why ?? ''),
    focus: () => tree.querySelector('button, input')?.focus(),
  };
  refresh();
  return [
    h('div', { class: 'field' }, h('p', { class: 'label' }, 'Chosen'), values.sources.length === 0 && h('p', { class: 'help' }, 'Tick folders and files below, or type a bucket or database.'), chosen, wrong),
    tree,
    typedSource(choose),
    text(form, 'exclude', {
      label: 'Left out',
      help: 'Patterns as in .gitignore, one a line.',
      example: '*.tmp\n/home/*/Downloads',
      long: true,
    }),
    tick(form, 'exclude-caches', 'Leave out folders that are marked as caches'),
    form.service.sizes === true && h('div', { class: 'stack' }, actionButton('How much is it?', () => measure(form, size)), size),
    h(
      'details',
      {},
      h('summary', {}, 'More about what'),
      tick(form, 'one-file-system', 'Stay on one file system', 'Does not enter what is mounted below a chosen folder.'),
      tick(form, 'skip-if-unchanged', 'Make no snapshot when nothing changed'),
      text(form, 'exclude-larger-than', { label: 'Leave out files larger than', example: '4G', short: true, check: (typed) => optional(typed, check.size) }),
    ),
  ];
}

function optional(typed, refuse) {
  return typed.trim() === '' ? null : refuse(typed.trim());
}

function chosenItem(path, sources, drop) {
  const cover = coveredBy(path, sources);
  return h(
    'li',
    {},
    h('span', {}, h('span', { class: 'path' }, path), cover && h('span', { class: 'quiet small' }, ` is in ${cover} already`)),
    h('button', { type: 'button', class: 'plain slim', click: drop, 'aria-label': `Remove ${path}` }, 'Remove'),
  );
}

function typedSource(choose) {
  let typed = '';
  const field = textField({
    label: 'A bucket, a database, or a path by hand',
    help: 's3://bucket/prefix, gs://bucket/prefix, postgres://user@host/database, or /a/path. The name of a destination that is a bucket does as well.',
    example: 's3://photos/2026',
    code: true,
    check: (text) => optional(text, check.source),
    change: (text) => {
      typed = text.trim();
    },
  });
  const add = () => {
    const why = typed === '' ? 'Type what is to be backed up.' : check.source(typed);
    if (why) return field.refuse(why);
    choose(typed, true);
    return field.put('');
  };
  return h('div', { class: 'stack' }, field.node, h('button', { type: 'button', click: add }, 'Add it'));
}

async function measure(form, place) {
  const paths = form.values.sources.filter((source) => source.startsWith('/'));
  const exclude = form.values.exclude.split('\n').map((line) => line.trim()).filter((line) => line !== '');
  const sizes = await Promise.all(paths.map((path) => api.get('/sizes', { path, exclude }, form.signal)));
  const rows = sizes.map((size, index) => h('li', {}, h('span', { class: 'path' }, paths[index]), h('span', {}, `${size.incomplete ? 'more than ' : ''}${bytes(size.bytes)} in ${things(size.files, 'file')}`)));
  fill(place, h('ul', { class: 'chosen' }, rows));
}

function wherePart(form, locations) {
  const options = locations.map(({ name, url }) => [name, `${name} (${url})`]);
  const isKnown = options.some(([name]) => name === form.values.location);
  const other = form.values.location !== '' && !isKnown ? [[form.values.location, form.values.location]] : [];
  const first = form.values.location === '' ? [['', 'Choose a destination']] : [];
  const part = selectField({
    label: 'Destination',
    value: form.values.location,
    options: [...first, ...other, ...options],
    change: (value) => {
      form.values.location = value;
      part.refuse(null);
      form.changed();
    },
  });
  form.fields.location = part;
  const without = locations.find(({ name, has_password: has }) => name === form.values.location && has === false);
  return [part.node, without && note('warn', h('p', {}, `The server has no password for the repository at ${without.name}. `, h('a', { href: `#/destinations/${encodeURIComponent(without.name)}` }, 'Give it one first.')))];
}

function whenPart(form) {
  const place = h('div', { class: 'stack' });
  const mode = choiceField({
    label: 'Schedule',
    value: form.values.when,
    options: [
      ['days', 'Every so many days', 'At the hours that you choose'],
      ['cron', 'By a cron expression', 'Five fields and a time zone'],
      ['manual', 'Only by hand', 'It runs when you say so'],
    ],
    change: (value) => {
      form.values.when = value;
      refresh();
      form.changed();
    },
  });
  const refresh = () => {
    for (const key of ['every', 'hours', 'cron', 'time-zone']) delete form.fields[key];
    if (form.values.when === 'days') fill(place, daysPart(form));
    else if (form.values.when === 'cron') fill(place, cronPart(form));
    else fill(place);
  };
  refresh();
  return [mode.node, place];
}

function daysPart(form) {
  const now = Date.now();
  const wrong = h('p', { class: 'wrong', 'aria-live': 'polite' });
  const toggle = (hour, isOn) => {
    form.values.hours = form.values.hours.filter((one) => one !== hour);
    if (isOn) form.values.hours.push(hour);
    wrong.textContent = schedule.refuseHours(form.values.hours) ?? '';
    form.changed();
  };
  const hour = (number) => {
    const control = h('input', { type: 'checkbox', checked: form.values.hours.includes(number) });
    control.addEventListener('change', () => toggle(number, control.checked));
    const local = schedule.hourIn(number, form.zone, now);
    return h('label', {}, control, `${String(number).padStart(2, '0')}:00`, h('small', {}, local, h('span', { class: 'unseen' }, ` in ${form.zone}`)));
  };
  const hours = h(
    'fieldset',
    { class: 'field' },
    h('legend', {}, 'Hours of the day, in UTC'),
    h('p', { class: 'help' }, `The small figures are ${form.zone}, as it is today.`),
    h('div', { class: 'hours' }, Array.from({ length: 24 }, (_, number) => hour(number))),
    wrong,
  );
  form.fields.hours = { node: hours, refuse: (why) => void (wrong.textContent = why ?? ''), focus: () => hours.querySelector('input').focus() };
  return [
    text(form, 'every', { label: 'Days between two runs', help: '1 is every day.', short: true, check: schedule.refuseEvery }),
    hours,
    catchUp(form),
  ];
}

function cronPart(form) {
  const zones = typeof Intl.supportedValuesOf === 'function' ? Intl.supportedValuesOf('timeZone') : [];
  return [
    text(form, 'cron', {
      label: 'Cron expression',
      help: 'Minute, hour, day of the month, month, day of the week: 30 2 * * mon-fri is half past two on weekdays.',
      code: true,
      check: schedule.refuseCron,
    }),
    text(form, 'time-zone', { label: 'Time zone', example: 'Europe/Berlin', list: 'zones', check: refuseZone }),
    h('datalist', { id: 'zones' }, zones.map((zone) => h('option', { value: zone }))),
    catchUp(form),
  ];
}

function catchUp(form) {
  return tick(form, 'catch-up', 'Make up once for runs that were missed', 'When the machine was off at their time.');
}

function keepPart(form) {
  const place = h('div', { class: 'stack' });
  const mode = choiceField({
    label: 'Snapshots are kept',
    value: form.values.keep,
    options: [
      ['days', 'For a number of days', 'The simplest'],
      ['rules', 'By rules', 'Close together of late, further apart in the past'],
      ['all', 'For ever', 'Until you forget them by hand'],
    ],
    change: (value) => {
      form.values.keep = value;
      refresh();
    },
  });
  const refresh = () => {
    for (const key of ['keep-days', 'forget', ...retention.RULES.map((rule) => rule.key)]) delete form.fields[key];
    if (form.values.keep === 'days') fill(place, text(form, 'keep-days', { label: 'Days', short: true, check: retention.refuseDays }));
    else if (form.values.keep === 'rules') fill(place, rulesPart(form));
    else fill(place);
  };
  refresh();
  return [mode.node, place];
}

function rulesPart(form) {
  const wrong = h('p', { class: 'wrong', 'aria-live': 'polite' });
  const rule = ({ key, label }) => {
    const part = textField({
      label: key === 'keep-last' ? 'The newest' : `One for each ${label.replace(/ly$/, '').replace('dai', 'day')}`,
      value: form.values.rules[key] ?? '',
      short: true,
      check: retention.refuseCount,
      change: (typed) => {
        form.values.rules[key] = typed.trim();
        wrong.textContent = retention.refuseRules(form.values.rules) ?? '';
      },
    });
    form.fields[key] = part;
    return part.node;
  };
  const rules = h('div', { class: 'grid rules' }, retention.RULES.map(rule));
  form.fields.forget = { node: rules, refuse: (why) => void (wrong.textContent = why ?? ''), focus: () => rules.querySelector('input').focus() };
  return [h('p', { class: 'help' }, 'How many of each; what one rule keeps stays. Empty leaves a rule out, -1 keeps all.'), rules, wrong];
}

function upkeepPart(form) {
  const hourOptions = Array.from({ length: 24 }, (_, hour) => [String(hour), `${String(hour).padStart(2, '0')}:00 UTC`]);
  const times = (table) => {
    const markChanged = () => {
      form.values[`${table}-changed`] = true;
    };
    const every = text(form, `${table}-every`, { label: 'Every so many days', short: true, check: schedule.refuseEvery });
    every.addEventListener('input', markChanged);
    const hour = selectField({
      label: 'At',
      value: form.values[`${table}-hour`],
      options: hourOptions,
      change: (value) => {
        form.values[`${table}-hour`] = value;
        markChanged();
        form.changed();
      },
    });
    return [every, hour.node];
  };
  const group = (table, label, help, more = []) => {
    const inner = h('div', { class: 'grid fields' }, times(table), more);
    inner.hidden = !form.values[table];
    const part = tickField({
      label,
      help,
      value: form.values[table],
      change: (value) => {
        form.values[table] = value;
        inner.hidden = !value;
        form.changed();
      },
    });
    return h('div', {}, part.node, inner);
  };
  const level = selectField({
    label: 'How thoroughly',
    value: form.values['check-level'],
    options: [
      ['quick', 'Quick: compares lists, in seconds'],
      ['structure', 'Structure: every snapshot down to its pieces'],
      ['data', 'Data: reads every byte'],
      ['drill', 'Drill: restores a sample to nowhere'],
    ],
    change: (value) => {
      form.values['check-level'] = value;
      form.changed();
    },
  });
  return [
    group('prune', 'Free space by itself', 'What no snapshot needs any more is deleted.'),
    group('check', 'Check the repository by itself', 'Finds what rotted before you need it.', level.node),
  ];
}

function noticePart(form) {
  const url = (key, label, help) => text(form, key, { label, help, example: 'https://', check: (typed) => optional(typed, check.webUrl) });
  return h(
    'details',
    {},
    h('summary', {}, 'Time limit, and who is told'),
    text(form, 'time-limit', { label: 'Time limit of a run', help: 'Then it is stopped; the next one goes on from there.', example: '8h', short: true, check: (typed) => optional(typed, check.duration) }),
    text(form, 'jitter', { label: 'Later by at most', help: 'So that not all jobs begin at once.', example: '10m', short: true, check: (typed) => optional(typed, check.duration) }),
    url('webhook', 'Webhook', 'Is told of failures, recoveries and missed runs, as JSON.'),
    url('ping-start', 'Called when a backup begins'),
    url('ping-success', 'Called when one was made'),
    url('ping-failure', 'Called when one failed'),
  );
}

/** Shows the next runs of what is typed, and what the server says against it. */
function previewOf(form) {
  const node = h('div', { class: 'field', 'aria-live': 'polite' });
  let timer = null;
  let asked = 0;
  const now = async () => {
    const isQuiet = form.values.when === 'manual' || Object.keys(mistakes(form.values, { isNew: !form.job })).some((key) => ['every', 'hours', 'cron', 'time-zone'].includes(key));
    if (isQuiet) return fill(node);
    asked += 1;
    const mine = asked;
    try {
      const answer = await send(form, true);
      if (mine === asked) fill(node, upcomingPart(answer?.upcoming?.backup, form.zone));
    } catch (problem) {
      if (mine === asked) fill(node);
      // What is empty yet is not told off before somebody saves.
      const part = partOf(problem.field);
      const local = mistakes(form.values, { isNew: !form.job });
      if (part && !local[part] && Object.keys(local).length === 0) form.fields[part]?.refuse(problem.message);
    }
    return node;
  };
  const later = () => {
    clearTimeout(timer);
    timer = setTimeout(now, PAUSE_MS);
  };
  form.signal.addEventListener('abort', () => clearTimeout(timer));
  return { node, now, later };
}

/** Shows times on the reader's clock and in UTC. */
export function upcomingPart(times, zone) {
  if (!times || times.length === 0) return null;
  const row = (time) => h('tr', {}, h('td', {}, `${weekday(time)} ${moment(time)}`), h('td', {}, `${weekday(time, 'UTC')} ${moment(time, 'UTC')}`));
  return h(
    'div',
    { class: 'wide', tabindex: '0', role: 'region', 'aria-label': 'Next runs' },
    h(
      'table',
      {},
      h('caption', {}, 'Next runs'),
      h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, zone), h('th', { scope: 'col' }, 'UTC'))),
      h('tbody', {}, times.map(row)),
    ),
  );
}

/** Sends what is typed; a dry run only asks what is said against it. */
async function send(form, dryRun) {
  const { job, values } = form;
  // A schedule can be tried before anything else is filled in.
  const stand = dryRun ? { name: values.name || 'new-job', location: values.location || '/nowhere', sources: values.sources.length > 0 ? values.sources : ['/'] } : {};
  const settings = toSettings({ ...values, ...(dryRun && !job ? stand : {}) }, job?.settings ?? null);
  const body = dryRun ? { settings, dry_run: true } : { settings };
  try {
    if (job) return await api.patch(`/jobs/${api.part(job.name)}`, body);
    return await api.post('/jobs', { name: dryRun ? stand.name : values.name, ...body });
  } catch (problem) {
    if (!dryRun) {
      const field = form.fields[partOf(problem.field)];
      field?.refuse(problem.message);
      field?.focus();
    }
    throw problem;
  }
}
