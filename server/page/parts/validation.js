/**
 * Trying a destination out: each step as it happens.
 */

import * as api from '../lib/api.js';
import { announce, fill, h } from '../lib/dom.js';
import { stepFound, stepWords } from '../lib/runs.js';
import { mark } from './marks.js';
import { note } from './page.js';

const TONES = { ok: 'good', failed: 'bad', skipped: 'skipped' };

/**
 * Shows a run of the kind validate.
 *
 * @param {string} id
 * @param {AbortSignal} signal
 * @param {function(boolean)} done is told whether a repository would work there
 */
export function validation(id, signal, done) {
  const list = h('ol', { class: 'checks', 'aria-label': 'Steps' });
  const waiting = h('li', { class: 'busy' }, mark('busy'), h('div', {}, 'Working on the next step …'));
  const verdict = h('div', { role: 'status' });
  let works = false;
  list.append(waiting);
  const listeners = {
    run: () => fill(list, waiting),
    line: (line) => {
      if (line.message_type === 'step') waiting.before(stepItem(line));
      if (line.message_type === 'warning') waiting.before(h('li', { class: 'warn' }, mark('warn'), h('div', {}, line.message)));
      if (line.message_type === 'summary') works = line.works === true;
    },
    end: (run) => {
      waiting.remove();
      const isWell = works || run.summary?.works === true;
      fill(verdict, verdictNote(isWell, run));
      announce(isWell ? 'The destination works' : 'The destination does not work');
      done(isWell);
    },
  };
  api.follow(id, listeners, signal);
  return h('div', { class: 'stack' }, list, verdict);
}

/** Shows one step with what it found, and what to do where it failed. */
export function stepItem(step) {
  const tone = TONES[step.outcome] ?? 'plain';
  return h(
    'li',
    { class: tone === 'skipped' ? 'quiet' : null },
    h('span', { class: tone }, mark(tone)),
    h('div', {}, stepWords(step.step), h('span', { class: 'unseen' }, ` (${step.outcome})`), ': ', h('span', { class: tone === 'bad' ? 'bad' : 'found' }, stepFound(step))),
    step.outcome === 'failed' && step.advice && h('p', { class: 'quiet' }, step.advice),
  );
}

function verdictNote(isWell, run) {
  if (!isWell) {
    return note('bad', h('p', {}, h('strong', {}, 'A repository would not work there.')), run.error && h('p', {}, run.error));
  }
  const racy = run.summary?.creates_exclusively === false;
  return note(
    'good',
    h('p', {}, h('strong', {}, 'It works.'), ' A repository can live there.'),
    racy && h('p', {}, 'It does not decide which of two writers was first: backups work, and a prune will have to be told so.'),
  );
}
