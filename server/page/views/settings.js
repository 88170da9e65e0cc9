/**
 * Settings: tokens, the portable backup, and who did what.
 */

import * as api from '../lib/api.js';
import { h } from '../lib/dom.js';
import { moment } from '../lib/format.js';
import { selectField } from '../parts/form.js';
import { actionButton, pagedList, pairs, top } from '../parts/page.js';
import { showToken, tokensPart } from '../parts/tokens.js';

const JOBS_MAX = 1000;

/** Shows the settings. */
export async function view({ session, service, signal }) {
  const isAdmin = session.scope === 'admin';
  const portable = isAdmin ? await portablePart(signal) : null;
  return {
    title: 'Settings',
    content: h(
      'div',
      { class: 'stack-large' },
      top('Settings'),
      servicePart(service),
      isAdmin && tokensPart('/tokens', signal),
      portable,
      isAdmin && auditPart(signal),
    ),
  };
}

function servicePart(service) {
  return h(
    'section',
    { class: 'card stack' },
    h('h2', {}, 'This server'),
    pairs([
      ['Version', service.version],
      ['Running since', moment(service.started)],
      ['Configuration', service.config && h('span', { class: 'path' }, service.config)],
      ['Folders that may be used', service.allow_paths?.length > 0 ? service.allow_paths.join(', ') : service.user ? 'none' : 'all'],
      ['TLS', service.tls ? 'yes' : 'no: put a certificate or a proxy with one before it, if it is reached from elsewhere'],
      ['API', [h('a', { href: '/api' }, 'All its routes'), ', ', h('a', { href: '/api/v1/openapi.json' }, 'OpenAPI document')]],
    ]),
  );
}

async function portablePart(signal) {
  const [portable, { items: jobs }] = await Promise.all([api.get('/portable', {}, signal), api.get('/jobs', { limit: JOBS_MAX }, signal)]);
  const job = selectField({
    label: 'Job whose sources it covers',
    value: portable.job ?? '',
    options: [['', 'The only one there is'], ...jobs.map(({ name }) => [name, name])],
    change: async (value) => {
      try {
        await api.put('/portable', { job: value || null });
        job.refuse(null);
      } catch (problem) {
        job.refuse(problem.message);
      }
    },
  });
  const make = async () => showToken(await api.post('/tokens', { name: 'portable', scope: 'portable' }));
  const { origin } = window.location;
  return h(
    'section',
    { class: 'card stack' },
    h('h2', {}, 'Portable backup'),
    h('p', {}, 'One call answers with everything that a job covers, as one encrypted file; another restores that into a new installation. Both take a token of their own, which opens nothing else.'),
    job.node,
    actionButton('Make a portable token', make),
    h('pre', { class: 'block', tabindex: '0', 'aria-label': 'The call that backs up' }, curlBackup(origin)),
    h('pre', { class: 'block', tabindex: '0', 'aria-label': 'The call that restores' }, curlRestore(origin)),
    h('p', { class: 'quiet small' }, 'payload.json and request.json hold the password of the file: { "password": "..." }'),
  );
}

function curlBackup(origin) {
  return `curl --header "Authorization: Bearer $TOKEN" --request POST --data @payload.json --output backup.blob ${origin}/_backup/api/v1/backup`;
}

function curlRestore(origin) {
  return `curl --header "Authorization: Bearer $TOKEN" --request POST --form config=@request.json --form snapshot=@backup.blob ${origin}/_backup/api/v1/restore`;
}

function auditPart(signal) {
  const body = h('tbody', {});
  const container = h(
    'div',
    { class: 'wide', tabindex: '0', role: 'region', 'aria-label': 'Who did what' },
    h('table', {}, h('thead', {}, h('tr', {}, ['Time', 'Who', 'What', 'Answer'].map((title) => h('th', { scope: 'col' }, title)))), body),
  );
  const row = ({ time, by, method, path, status }) =>
    h('tr', {}, h('td', {}, moment(time)), h('td', {}, by), h('td', { class: 'path' }, `${method} ${path}`), h('td', {}, String(status)));
  const place = h('div', {});
  const details = h('details', {}, h('summary', {}, 'Who did what'), place);
  details.addEventListener('toggle', () => {
    if (details.open && !place.hasChildNodes()) {
      place.append(pagedList((cursor) => api.get('/audit', { limit: 50, cursor }, signal), (items) => items.map(row), { list: body, container }));
    }
  });
  return h('section', {}, details);
}
