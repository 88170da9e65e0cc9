/**
 * Adds or edits a destination.
 */

import * as api from '../lib/api.js';
import { to } from '../lib/route.js';
import { destinationForm } from '../parts/destination-form.js';
import { top } from '../parts/page.js';

/** Shows the form. */
export async function view({ names, service, signal }) {
  const location = names.name ? await api.get(`/locations/${api.part(names.name)}`, {}, signal) : null;
  const title = location ? `Edit ${location.name}` : 'Add a destination';
  const back = location ? [to(['destinations', location.name]), location.name] : ['#/destinations', 'Destinations'];
  const saved = (found) => {
    window.location.hash = to(['destinations', found.name]);
  };
  return { title, content: [top(title, { back }), destinationForm({ location, service, signal, saved })] };
}
