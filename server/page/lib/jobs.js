/**
 * What the form of a job says, and the settings of larder.toml that mean the same. Pure.
 */

import * as check from './check.js';
import * as retention from './retention.js';
import * as schedule from './schedule.js';

/** Kinds of schedule and retention between which the form chooses. */
export const WHEN = ['days', 'cron', 'manual'];
export const KEEP = ['days', 'rules', 'all'];

/** Texts of the form that are settings of the same name. */
const TEXTS = ['exclude-larger-than', 'jitter', 'time-limit', 'ping-start', 'ping-success', 'ping-failure', 'webhook'];
/** Switches of the form that are settings of the same name. */
const FLAGS = ['exclude-caches', 'one-file-system', 'skip-if-unchanged'];

/** Gives the values of a form for a new job. */
export function emptyValues(zone = 'UTC') {
  return {
    name: '',
    location: '',
    sources: [],
    exclude: '',
    'exclude-caches': true,
    'one-file-system': false,
    'skip-if-unchanged': false,
    'exclude-larger-than': '',
    when: 'days',
    every: '1',
    hours: [1],
    cron: '30 2 * * *',
    'time-zone': zone,
    'catch-up': true,
    jitter: '',
    'time-limit': '',
    keep: 'days',
    'keep-days': '30',
    rules: { 'keep-daily': '7', 'keep-weekly': '5', 'keep-monthly': '12' },
    prune: true,
    'prune-every': '7',
    'prune-hour': '3',
    check: true,
    'check-every': '7',
    'check-hour': '4',
    'check-level': 'structure',
    'ping-start': '',
    'ping-success': '',
    'ping-failure': '',
    webhook: '',
  };
}

/** Gives the values of a form for a job that is there. */
export function fromJob({ name, settings }, zone = 'UTC') {
  const empty = emptyValues(zone);
  const has = (key) => settings[key] !== undefined && settings[key] !== null;
  const hasHours = (settings.hours ?? []).length > 0;
  const texts = Object.fromEntries(TEXTS.map((key) => [key, has(key) ? String(settings[key]) : '']));
  const flags = Object.fromEntries(FLAGS.map((key) => [key, settings[key] === true]));
  const rules = settings.forget ?? {};
  const counts = retention.RULES.filter(({ key }) => rules[key] !== undefined && rules[key] !== null);
  const hasRules = Object.values(rules).some((value) => value !== null && [value].flat().length > 0);
  return {
    ...empty,
    ...texts,
    ...flags,
    ...besides('prune', settings.prune, empty),
    ...besides('check', settings.check, empty),
    'check-level': settings.check?.level ?? 'structure',
    name,
    location: settings.location ?? '',
    sources: [...(settings.sources ?? [])],
    exclude: (settings.exclude ?? []).join('\n'),
    when: has('cron') ? 'cron' : hasHours ? 'days' : 'manual',
    every: String(settings.every ?? 1),
    hours: hasHours ? [...settings.hours] : empty.hours,
    cron: settings.cron ?? empty.cron,
    'time-zone': settings['time-zone'] ?? zone,
    'catch-up': settings['catch-up'] !== false,
    keep: has('keep-days') ? 'days' : hasRules ? 'rules' : 'all',
    'keep-days': has('keep-days') ? String(settings['keep-days']) : empty['keep-days'],
    rules: hasRules ? Object.fromEntries(counts.map(({ key }) => [key, String(rules[key])])) : empty.rules,
  };
}

function besides(table, settings, empty) {
  const said = settings !== undefined && settings !== null;
  return {
    [table]: said,
    [`${table}-every`]: String(settings?.every ?? empty[`${table}-every`]),
    [`${table}-hour`]: String(settings?.hours?.[0] ?? empty[`${table}-hour`]),
  };
}

/**
 * Makes settings of a form's values.
 *
 * @param {object|null} before the settings of the job that is edited: what the form does not know of them stays, and what it no
 *   longer says becomes null, in tables as well
 */
export function toSettings(values, before = null) {
  const settings = { location: values.location, sources: values.sources };
  const says = (key, value) => {
    if (value !== null) settings[key] = value;
    // Only what was said before has to be taken back.
    else if (before && before[key] !== undefined && before[key] !== null) settings[key] = null;
  };
  const lines = values.exclude.split('\n').map((line) => line.trim());
  const excludes = lines.filter((line) => line !== '');
  says('exclude', excludes.length > 0 ? excludes : null);
  for (const key of FLAGS) says(key, values[key] ? true : null);
  for (const key of TEXTS) says(key, values[key].trim() || null);
  const isDays = values.when === 'days';
  const isCron = values.when === 'cron';
  says('every', isDays ? Number(values.every) : null);
  says('hours', isDays ? [...values.hours].sort((a, b) => a - b) : null);
  says('cron', isCron ? values.cron.trim() : null);
  says('time-zone', isCron ? values['time-zone'].trim() : null);
  says('catch-up', values['catch-up'] ? null : false);
  says('keep-days', values.keep === 'days' ? Number(values['keep-days']) : null);
  says('forget', values.keep === 'rules' ? rulesOf(values, before?.forget) : null);
  says('prune', values.prune ? times(values, 'prune', before?.prune) : null);
  const level = { level: values['check-level'] };
  says('check', values.check ? { ...times(values, 'check', before?.check), ...level } : null);
  return settings;
}

function rulesOf(values, before) {
  const rules = { ...said(before) };
  for (const { key } of retention.RULES) {
    const text = String(values.rules[key] ?? '').trim();
    if (text !== '') rules[key] = Number(text);
    else if (key in rules) rules[key] = null;
  }
  return rules;
}

/** Days and an hour take the place of whatever times there were; how it is done stays. */
function times(values, table, before) {
  const found = said(before);
  if (found.cron && !values[`${table}-changed`]) return found;
  const gone = ['cron', 'time-zone'].filter((key) => key in found).map((key) => [key, null]);
  return { ...found, ...Object.fromEntries(gone), every: Number(values[`${table}-every`]), hours: [Number(values[`${table}-hour`])] };
}

function said(table) {
  const entries = Object.entries(table ?? {});
  return Object.fromEntries(entries.filter(([, value]) => value !== null && !(Array.isArray(value) && value.length === 0)));
}

/** Gives the reason against each part of the form that is wrong, by the name of the part. */
export function mistakes(values, { isNew = true } = {}) {
  const found = {};
  const says = (key, why) => {
    if (why) found[key] = why;
  };
  if (isNew) says('name', values.name === '' ? 'A name is needed.' : check.name(values.name));
  says('location', values.location === '' ? 'Choose where the backups go.' : null);
  says('sources', values.sources.length === 0 ? 'Choose at least one folder, bucket or database.' : firstWrong(values.sources));
  if (values.when === 'days') {
    says('every', schedule.refuseEvery(values.every));
    says('hours', schedule.refuseHours(values.hours));
  }
  if (values.when === 'cron') {
    says('cron', schedule.refuseCron(values.cron));
    says('time-zone', refuseZone(values['time-zone']));
  }
  if (values.keep === 'days') says('keep-days', retention.refuseDays(values['keep-days']));
  if (values.keep === 'rules') {
    for (const { key } of retention.RULES) says(key, retention.refuseCount(values.rules[key] ?? ''));
    says('forget', retention.refuseRules(values.rules));
  }
  if (values.prune) says('prune-every', schedule.refuseEvery(values['prune-every']));
  if (values.check) says('check-every', schedule.refuseEvery(values['check-every']));
  const optional = (key, refuse) => says(key, values[key].trim() === '' ? null : refuse(values[key].trim()));
  optional('exclude-larger-than', check.size);
  optional('jitter', check.duration);
  optional('time-limit', check.duration);
  for (const key of ['ping-start', 'ping-success', 'ping-failure', 'webhook']) optional(key, check.webUrl);
  return found;
}

function firstWrong(sources) {
  const wrong = sources.map((source) => [source, check.source(source)]).find(([, why]) => why);
  return wrong ? `${wrong[0]}: ${wrong[1]}` : null;
}

/** Gives the reason against a time zone that the browser does not know, or null. */
export function refuseZone(zone) {
  try {
    new Intl.DateTimeFormat('en', { timeZone: zone.trim() || 'none' });
    return null;
  } catch {
    return 'Write the name of a time zone, such as Europe/Berlin or UTC.';
  }
}

/** Gives the part of the form that a field of the server's answer means. */
export function partOf(field) {
  if (!field) return null;
  const key = field.replace(/^settings\./, '');
  const [table, inner] = key.split('.');
  if (table === 'prune' || table === 'check') return inner === 'hours' ? `${table}-hour` : `${table}-every`;
  if (table === 'forget') return inner ?? 'forget';
  return table;
}
