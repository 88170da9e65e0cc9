/**
 * The first set-up: where to, a password, what and when, and the first run.
 */

import * as api from '../lib/api.js';
import { fill, h } from '../lib/dom.js';
import { to } from '../lib/route.js';
import { liveRun } from '../parts/live.js';
import { actionButton, linkButton, note, top } from '../parts/page.js';

const STEPS = ['Where to', 'Password', 'What and when', 'First run'];
const LOCATIONS_MAX = 1000;

/** Shows the step that is next: what is there already is not asked again. */
export async function view({ session, service, signal }) {
  if (session.scope !== 'admin') {
    return { title: 'Set-up', content: [top('Nothing is set up yet'), note('', h('p', {}, 'An administrator has to set up the first backup.'))] };
  }
  const place = h('div', {});
  const context = { service, signal, place };
  await next(context);
  return { title: 'Set-up', content: place };
}

async function next(context) {
  const { signal } = context;
  const [{ items: locations }, { items: jobs }] = await Promise.all([api.get('/locations', { limit: LOCATIONS_MAX }, signal), api.get('/jobs', {}, signal)]);
  const open = locations.find((location) => !location.has_password);
  if (locations.length === 0) return show(context, 0, await whereStep(context));
  if (open && locations.every((location) => !location.has_password)) return show(context, 1, await passwordStep(context, open));
  if (jobs.length === 0) return show(context, 2, await whatStep(context, locations));
  return show(context, 3, runStep(context, jobs[0]));
}

function show({ place }, index, [title, about, content]) {
  const isFirst = !place.hasChildNodes();
  const item = (name, at) => h('li', { 'aria-current': at === index ? 'step' : null, class: at < index ? 'done' : null }, name, at < index && h('span', { class: 'unseen' }, ' (done)'));
  fill(place, h('ol', { class: 'path-steps', 'aria-label': 'Steps' }, STEPS.map(item)), top(title, { about }), content);
  if (isFirst) return;
  window.scrollTo(0, 0);
  place.querySelector('h1').focus({ preventScroll: true });
}

/** Each step fetches its form when it is its turn. */
async function whereStep(context) {
  const { destinationForm } = await import('../parts/destination-form.js');
  const { service, signal } = context;
  const saved = () => next(context);
  return [
    'Where should the backups go?',
    'Choose a kind of storage, fill in what it asks for, and validate it: each step of that is shown. You can add more places later.',
    destinationForm({ location: null, service, signal, saved, name: 'backup' }),
  ];
}

async function passwordStep(context, location) {
  const { repositoryForm } = await import('../parts/destination-form.js');
  const done = () => next(context);
  return [
    'Choose a password',
    `Everything is encrypted before it leaves this machine. At ${location.name} a repository is made under a password of yours.`,
    repositoryForm({ location: location.name, done }),
  ];
}

async function whatStep(context, locations) {
  const { jobForm } = await import('../parts/job-form.js');
  const { service, signal } = context;
  const saved = () => next(context);
  return [
    'What is backed up, and when?',
    'A job has a name and does this by itself from now on.',
    jobForm({ job: null, locations, service, signal, saved, label: 'Save and go on' }),
  ];
}

function runStep(context, job) {
  const result = h('div', {});
  const run = async () => {
    const started = await api.start(`/jobs/${api.part(job.name)}/run`);
    const ended = (last) => {
      const isDone = ['success', 'incomplete'].includes(last.outcome);
      fill(after, isDone ? allSet(job) : note('bad', h('p', {}, 'The first run failed; the log says why. Mend it, then run it again.'), linkButton(to(['edit-job', job.name]), 'Edit the job')));
    };
    const after = h('div', {});
    fill(result, h('section', { class: 'card stack', 'aria-label': 'First run' }, liveRun(started.id, context.signal, { ended }), after));
  };
  return ['Run it for the first time', 'The first backup reads everything, and later ones what changed.', h('div', { class: 'stack' }, actionButton(`Run ${job.name} now`, run, { kind: 'main' }), result)];
}

function allSet(job) {
  return note(
    'good',
    h('p', {}, h('strong', {}, 'You have a backup.'), ' It goes on by itself from here as long as larder serve runs.'),
    h('div', { class: 'row' }, linkButton('#/snapshots', 'Look into it', 'main'), linkButton('#/', 'Health'), linkButton(to(['jobs', job.name]), 'The job')),
  );
}
