/**
 * Adds or edits a job.
 */

import * as api from '../lib/api.js';
import { to } from '../lib/route.js';
import { jobForm } from '../parts/job-form.js';
import { empty, linkButton, top } from '../parts/page.js';

const LOCATIONS_MAX = 1000;

/** Shows the form. */
export async function view({ names, service, signal }) {
  const [job, { items: locations }] = await Promise.all([
    names.name ? api.get(`/jobs/${api.part(names.name)}`, {}, signal) : null,
    api.get('/locations', { limit: LOCATIONS_MAX }, signal),
  ]);
  const title = job ? `Edit ${job.name}` : 'Add a job';
  const back = job ? [to(['jobs', job.name]), job.name] : ['#/jobs', 'Jobs'];
  const saved = (found) => {
    location.hash = to(['jobs', found.name]);
  };
  const content =
    locations.length === 0
      ? empty('There is no destination yet', 'A job needs somewhere to put its backups.', linkButton('#/new-destination', 'Add a destination', 'main'))
      : jobForm({ job, locations, service, signal, saved });
  return { title, content: [top(title, { back }), content] };
}
