/**
 * The page: asks who is there, shows the frame, and puts the view that the address names into it.
 */

import * as api from './lib/api.js';
import { fill, h } from './lib/dom.js';
import { match } from './lib/route.js';
import { isAdministrator } from './lib/users.js';
import { brandMark } from './parts/marks.js';
import { problemNote } from './parts/page.js';

const MENU = [
  ['#/', 'Health', ['health']],
  ['#/jobs', 'Jobs', ['jobs', 'job', 'job-form']],
  ['#/runs', 'Runs', ['runs', 'run']],
  ['#/snapshots', 'Snapshots', ['snapshots', 'browse', 'search', 'compare', 'versions', 'restore']],
  ['#/destinations', 'Destinations', ['destinations', 'destination', 'destination-form']],
  ['#/settings', 'Settings', ['settings']],
];
/** What the administrator has besides. */
const OF_ADMINISTRATOR = [['#/users', 'Users', ['users', 'user']]];

const bar = document.getElementById('bar');
const main = document.getElementById('main');

let session = null;
let leaving = new AbortController();

window.addEventListener('hashchange', () => show());
window.addEventListener('larder:logged-out', () => {
  session = null;
  show();
});
document.querySelector('.skip').addEventListener('click', (event) => {
  // The address is the view's.
  event.preventDefault();
  main.focus();
});
begin();

async function begin() {
  try {
    session = await api.session();
    await show(true);
  } catch (problem) {
    fill(main, problemNote(problem));
  }
}

/** Shows what the address names, or the log-in. */
async function show(isFirst = false) {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  if (!session) {
    const { logIn } = await import('./views/log-in.js');
    return put(logIn(entered), null, signal);
  }
  const found = match(location.hash);
  if (!found) return put({ title: 'Not found', content: h('p', {}, 'There is no such page. ', h('a', { href: '#/' }, 'To the beginning')) }, null, signal);
  try {
    const service = await api.get('/service', {}, signal);
    if (isFirst && found.view === 'health' && service.needs_setup && session.scope === 'admin') {
      location.hash = '#/setup';
      return;
    }
    const { view } = await import(`./views/${found.view}.js`);
    const made = await view({ ...found, session, service, signal });
    put(made, found.view, signal, isFirst);
  } catch (problem) {
    if (problem.name !== 'AbortError' && session) put({ title: 'Not shown', content: problemNote(problem) }, found.view, signal);
  }
}

async function entered(found) {
  session = found;
  await show(true);
}

function put({ title, content }, view, signal, isFirst = false) {
  if (signal.aborted) return;
  document.title = title === 'Larder' ? title : `${title} · Larder`;
  document.body.classList.toggle('is-alone', view === null);
  frame(view);
  fill(main, content);
  window.scrollTo(0, 0);
  if (isFirst) return;
  // So that a keyboard goes on from the new view, and a screen reader says which one it is.
  (main.querySelector('h1') ?? main).focus({ preventScroll: true });
}

function frame(view) {
  const brand = h('a', { class: 'brand', href: '#/' }, brandMark(), 'Larder');
  if (view === null) return fill(bar, brand);
  const all = isAdministrator(session) ? [...MENU, ...OF_ADMINISTRATOR] : MENU;
  const items = all.map(([href, text, views]) =>
    h('li', {}, h('a', { href, 'aria-current': views.includes(view) ? 'page' : null }, text)),
  );
  const menu = h('nav', { id: 'menu', 'aria-label': 'Main', hidden: true }, h('ul', {}, items), foot());
  const button = h('button', { type: 'button', class: 'menu-button slim', 'aria-expanded': 'false', 'aria-controls': 'menu' }, 'Menu');
  button.addEventListener('click', () => {
    menu.hidden = !menu.hidden;
    button.setAttribute('aria-expanded', String(!menu.hidden));
  });
  return fill(bar, brand, button, menu);
}

function foot() {
  const leave = async () => {
    await api.logOut().catch(() => {});
    session = null;
    location.hash = '#/';
    show();
  };
  return h(
    'div',
    { class: 'foot' },
    h('p', {}, `Logged in as ${session.user ? `${session.user}, ` : ''}${session.name} (${session.scope})`),
    h('button', { type: 'button', class: 'plain slim', click: leave }, 'Log out'),
  );
}
