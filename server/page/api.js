/**
 * The page of the API: what /api/v1/openapi.json says, and what looks can be tried with the log-in of this browser.
 */

import { announce, fill, h, uniqueId } from './lib/dom.js';
import { address, curl, fits, headings, kindOf, lines, resolved } from './lib/openapi.js';
import { brandMark } from './parts/marks.js';
import { actionButton, problemNote, top } from './parts/page.js';

const DOCUMENT = '/api/v1/openapi.json';
const SHOWN_MAX = 200_000;

const bar = document.getElementById('bar');
const main = document.getElementById('main');
document.body.classList.add('is-alone', 'is-api');
document.querySelector('.skip').addEventListener('click', (event) => {
  // The address is that of an operation.
  event.preventDefault();
  main.focus();
});
begin();

async function begin() {
  fill(bar, h('a', { class: 'brand', href: '/' }, brandMark(), 'Larder'));
  try {
    const answer = await fetch(DOCUMENT);
    if (!answer.ok) throw new Error(`The server answered with ${answer.status}.`);
    show(await answer.json());
  } catch (problem) {
    fill(main, problemNote(problem));
  }
}

function show(api) {
  const parts = [...headings(api)].map(([heading, operations]) => section(api, heading, operations));
  const id = uniqueId('search');
  const search = h('input', { id, type: 'search', autocomplete: 'off' });
  search.addEventListener('input', () => narrow(parts, search.value.trim()));
  const about = [api.info.description, ' ', h('a', { href: DOCUMENT }, 'The document itself'), ' is for programs.'];
  fill(
    main,
    top(`The API of Larder ${api.info.version}`, { about }),
    h('div', { class: 'stack-large' }, h('div', { class: 'field' }, h('label', { for: id }, 'Search'), search), parts.map(({ node }) => node)),
  );
  const named = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (named) {
    named.open = true;
    named.scrollIntoView();
  }
}

function narrow(parts, search) {
  let count = 0;
  for (const { node, operations } of parts) {
    const found = operations.filter(({ node: one, operation }) => {
      one.hidden = !fits(operation, search);
      return !one.hidden;
    });
    node.hidden = found.length === 0;
    count += found.length;
  }
  announce(`${count} found`);
}

function section(api, heading, operations) {
  const made = operations.map((operation) => ({ operation, node: shown(api, operation) }));
  return { operations: made, node: h('section', {}, h('h2', {}, heading), made.map(({ node }) => node)) };
}

function shown(api, operation) {
  const { method, path, operation: said } = operation;
  const place = h('div', { class: 'stack' });
  const details = h(
    'details',
    { class: 'call', id: said.operationId },
    h('summary', {}, h('span', { class: 'mark' }, method), ' ', h('span', { class: 'path' }, path), ' ', h('span', { class: 'quiet about' }, said.summary)),
    place,
  );
  details.addEventListener('toggle', () => {
    if (details.open && !place.hasChildNodes()) fill(place, inside(api, operation));
  });
  return details;
}

function inside(api, operation) {
  const { method, operation: said } = operation;
  const scope = said['x-larder-scope'];
  const parameters = said.parameters.map((one) => ({
    depth: 0,
    name: one.name,
    kind: `${kindOf(api, one.schema)}, in the ${one.in}`,
    isNeeded: one.required,
    about: bounds(one.schema),
  }));
  const bodies = Object.entries(said.requestBody?.content ?? {});
  return [
    h('p', { class: 'quiet' }, scope ? `For tokens of the scope ${scope}${scope === 'portable' ? '' : ' or above'}.` : 'Needs no token.'),
    h('pre', { class: 'block', tabindex: '0', 'aria-label': 'By curl' }, curl(api, operation, location.origin)),
    parameters.length > 0 && table('Parameters', parameters),
    bodies.map(([kind, { schema }]) => table(`Body, ${kind}`, lines(api, schema))),
    Object.entries(said.responses).map(([status, answer]) => answered(api, status, resolved(api, answer))),
    method === 'GET' && tried(operation),
  ];
}

function bounds({ minimum, maximum, pattern }) {
  if (pattern) return `like ${pattern}`;
  return minimum === undefined ? '' : `${minimum} to ${maximum}`;
}

function answered(api, status, answer) {
  const kinds = Object.entries(answer.content ?? {});
  const title = `${status}: ${answer.description}`;
  if (!status.startsWith('2') || kinds.length === 0) return h('p', { class: 'quiet small' }, title);
  return kinds.map(([kind, said]) => {
    const events = Object.entries(said['x-larder-events'] ?? {});
    const own = said.schema.properties || said.schema.$ref || said.schema.allOf || said.schema.anyOf ? lines(api, said.schema) : [];
    return [
      own.length > 0 ? table(`${title}: ${kind}`, own) : h('p', {}, `${title}: ${kind}`),
      events.map(([name, schema]) => table(`The event ${name}`, lines(api, schema))),
    ];
  });
}

function table(caption, rows) {
  const row = ({ depth, name, kind, isNeeded, about }) =>
    h('tr', {}, h('th', { scope: 'row', class: `path in-${depth}` }, name, isNeeded && h('span', { class: 'quiet' }, ' *')), h('td', {}, kind), h('td', {}, about));
  return h(
    'div',
    { class: 'wide', tabindex: '0', role: 'region', 'aria-label': caption },
    h('table', {}, h('caption', {}, caption, ' (* always)'), h('thead', {}, h('tr', {}, ['Name', 'What it is', ''].map((title) => h('th', { scope: 'col' }, title || h('span', { class: 'unseen' }, 'About'))))), h('tbody', {}, rows.map(row))),
  );
}

/** Sends what only looks, with the log-in of this browser. */
function tried(operation) {
  const values = {};
  const fields = operation.operation.parameters.map((parameter) => {
    const id = uniqueId('parameter');
    const input = h('input', { id, type: 'text', autocomplete: 'off' });
    input.addEventListener('input', () => {
      values[parameter.name] = input.value;
    });
    return h('div', { class: 'field' }, h('label', { for: id }, parameter.name, parameter.required ? ' (needed)' : ''), input);
  });
  const place = h('div', { 'aria-live': 'polite' });
  const send = async () => {
    const given = operation.operation.parameters.filter(({ required, name }) => required && !values[name]);
    if (given.length > 0) throw new Error(`${given[0].name} is needed.`);
    fill(place, h('p', { class: 'quiet' }, 'Asking …'));
    fill(place, await asked(address(operation, values)));
  };
  return h('div', { class: 'stack' }, fields, actionButton('Try it', send, { label: `Try it: GET ${operation.path}` }), place);
}

async function asked(target) {
  const leaving = new AbortController();
  const answer = await fetch(target, { signal: leaving.signal });
  const kind = answer.headers.get('content-type') ?? '';
  const title = h('p', {}, `${answer.status} ${kind}`);
  if (answer.status === 401) return [title, h('p', {}, h('a', { href: '/' }, 'Log in'), ' first; the token of the log-in is used.')];
  if (!/json|^text\/plain/.test(kind)) {
    leaving.abort();
    return [title, h('p', {}, h('a', { href: target }, 'Open it'), ' by itself: it is a download, or goes on for a while.')];
  }
  const text = await answer.text();
  const told = kind.includes('json') ? JSON.stringify(JSON.parse(text), null, 2) : text;
  return [title, h('pre', { class: 'block', tabindex: '0', 'aria-label': 'The answer' }, told.slice(0, SHOWN_MAX))];
}
