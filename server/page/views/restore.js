/**
 * Restores from a snapshot: a dry run first, then in earnest.
 */

import * as api from '../lib/api.js';
import * as check from '../lib/check.js';
import { fill, h } from '../lib/dom.js';
import { bytes, count, moment, things } from '../lib/format.js';
import { to } from '../lib/route.js';
import { choiceField, showMistakes, textField, tickField } from '../parts/form.js';
import { liveRun } from '../parts/live.js';
import { actionButton, note, pairs, top } from '../parts/page.js';
import { folderTree } from '../parts/tree.js';

const OVERWRITE = [
  ['if-changed', 'Write what differs', 'What is right already stays as it is'],
  ['never', 'Write only what is missing', 'Nothing that is there is touched'],
  ['always', 'Write everything', 'Over whatever is there'],
];

/** Shows the restore. */
export async function view({ names, query, session, service, signal }) {
  const snapshot = await api.get(`/locations/${api.part(names.location)}/snapshots/${api.part(names.id)}`, {}, signal);
  const form = {
    values: { target: '', overwrite: 'if-changed', delete: false, verify: true },
    request: { location: names.location, snapshot: snapshot.id, ...(query.path ? { path: query.path } : {}) },
    fields: {},
    signal,
    /** What was tried last by a dry run. */
    tried: null,
  };
  const title = 'Restore';
  const back = [to(['snapshots', names.location, snapshot.id], { path: query.path }), 'The snapshot'];
  const what = pairs([
    ['Snapshot', `${moment(snapshot.time)}, ${snapshot.host}`],
    ['What', h('span', { class: 'path' }, query.path || `everything: ${snapshot.sources.join(' ')}`)],
  ]);
  return { title, content: h('div', { class: 'stack' }, top(title, { back }), h('section', { class: 'card' }, what), formPart(form, session, service)) };
}

function formPart(form, session, service) {
  const foot = h('div', {});
  const result = h('div', {});
  const changed = () => {
    form.tried = null;
    fill(foot, footOf(form, result, refresh));
  };
  const refresh = () => fill(foot, footOf(form, result, refresh));
  form.fields.target = textField({
    label: 'Into',
    help: 'A folder of the machine that runs Larder, made if it is not there; or a bucket such as s3://bucket/prefix.',
    example: '/srv/restored',
    required: true,
    code: true,
    check: refuseTarget,
    change: (text) => {
      form.values.target = text.trim();
      changed();
    },
  });
  const set = (key) => (value) => {
    form.values[key] = value;
    changed();
  };
  const overwrite = choiceField({ label: 'What is there already', value: form.values.overwrite, options: OVERWRITE, change: set('overwrite') });
  refresh();
  return h(
    'div',
    { class: 'stack' },
    h(
      'section',
      { class: 'card stack' },
      form.fields.target.node,
      session.scope === 'admin' && choosePart(form, service),
      overwrite.node,
      tickField({ label: 'Delete what the snapshot does not have', help: 'The target is then exactly as the snapshot. Look at the dry run first.', value: false, change: set('delete') }).node,
      tickField({ label: 'Read it back and compare', value: true, change: set('verify') }).node,
    ),
    foot,
    result,
  );
}

function refuseTarget(text) {
  const typed = text.trim();
  if (typed === '') return 'Say where to.';
  if (/^(s3|gs|postgres):\/\//.test(typed) || /^[A-Za-z0-9][A-Za-z0-9_.-]*$/.test(typed)) return null;
  return check.absolutePath(typed);
}

function choosePart(form, service) {
  const roots = service.allow_paths?.length > 0 ? service.allow_paths : ['/'];
  const choose = (path) => form.fields.target.put(path);
  const place = h('div', {});
  const details = h('details', {}, h('summary', {}, 'Choose a folder'), place);
  details.addEventListener('toggle', () => {
    if (details.open && !place.hasChildNodes()) fill(place, folderTree({ roots, signal: form.signal, choose, isChosen: () => false, single: true }));
  });
  return details;
}

function footOf(form, result, refresh) {
  const begin = async (dryRun) => {
    const why = refuseTarget(form.values.target);
    if (!showMistakes(form.fields, why ? { target: why } : {})) return null;
    try {
      return await api.start('/restores', { ...form.request, ...form.values, dry_run: dryRun });
    } catch (problem) {
      if (problem.field === 'target') form.fields.target.refuse(problem.message);
      throw problem;
    }
  };
  const attempt = async () => {
    const run = await begin(true);
    if (!run) return;
    const print = JSON.stringify(form.values);
    await new Promise((resolve) => {
      const ended = (last) => {
        form.tried = ['success', 'incomplete'].includes(last.outcome) ? print : null;
        fill(result, h('section', { class: 'card stack', 'aria-label': 'Dry run' }, dryRunPart(last)));
        refresh();
        result.scrollIntoView({ block: 'nearest' });
        resolve();
      };
      fill(result, h('section', { class: 'card stack', 'aria-label': 'Dry run' }, liveRun(run.id, form.signal, { ended })));
    });
  };
  const restore = async () => {
    const run = await begin(false);
    if (run) location.hash = to(['runs', run.id]);
  };
  const isReady = form.tried === JSON.stringify(form.values);
  return h(
    'div',
    { class: 'actions' },
    actionButton('Try it (dry run)', attempt, { kind: isReady ? '' : 'main' }),
    isReady ? actionButton('Restore', restore, { kind: 'main' }) : h('button', { type: 'button', disabled: true, 'aria-describedby': 'restore-help' }, 'Restore'),
    !isReady && h('p', { class: 'help', id: 'restore-help' }, 'A dry run comes first; it changes nothing.'),
  );
}

function dryRunPart(run) {
  const summary = run.summary;
  if (!summary) return note('bad', h('p', {}, run.error ?? 'The dry run failed.'));
  const { files, unchanged, deleted, bytes: written, failed } = summary;
  const paths = (summary.issues ?? []).map(({ path, error }) => h('li', {}, h('span', { class: 'path' }, path), h('p', { class: 'quiet small' }, error)));
  return [
    h('h2', {}, 'This is what a restore would do'),
    pairs([
      ['Write', `${things(files, 'file')}, ${bytes(written)}`],
      ['Leave as it is', things(unchanged, 'file')],
      ['Delete', count(deleted)],
      ['Cannot be restored', failed > 0 ? count(failed) : null],
    ]),
    paths.length > 0 && h('ul', {}, paths),
    run.error && note('warn', h('p', {}, run.error)),
  ];
}
