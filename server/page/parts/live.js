/**
 * A run while it goes on: how far it is, how fast, and what it says.
 */

import * as api from '../lib/api.js';
import { announce, fill, h } from '../lib/dom.js';
import { bytes, count, duration, rate } from '../lib/format.js';
import { rateOf, sampled, shareDone } from '../lib/progress.js';
import { lineWords, outcomeWords } from '../lib/runs.js';
import { note } from './page.js';

/** Lines of a log that are kept on the page; the API has all of them. */
const LINES_MAX = 2000;

/**
 * Follows a run.
 *
 * @param {string} id
 * @param {AbortSignal} signal
 * @param {{line?: function, ended?: function(object, object[])}} listeners `ended` is given the final record and all lines
 * @returns {Node}
 */
export function liveRun(id, signal, { line: onLine, ended } = {}) {
  const progress = progressPart();
  const log = logPart();
  const lines = [];
  const outcome = h('div', {});
  const listeners = {
    status: progress.show,
    line: (line) => {
      lines.push(line);
      log.add(line);
      onLine?.(line);
    },
    lost: () => progress.say('The connection is lost; the run goes on. Trying again …'),
    end: (run) => {
      progress.end();
      const { word } = outcomeWords(run.outcome);
      announce(`The run has ended: ${word}`);
      fill(outcome, endNote(run));
      ended?.(run, lines);
    },
    // After a lost connection all lines come again.
    run: () => {
      lines.length = 0;
      log.clear();
      progress.say('');
    },
  };
  api.follow(id, listeners, signal);
  return h('div', { class: 'stack' }, progress.node, outcome, log.node);
}

/** Says how a run ended, with the engine's own sentence. */
export function endNote(run) {
  const { word, tone } = outcomeWords(run.outcome);
  const kind = tone === 'plain' ? '' : tone;
  return note(kind, h('p', {}, h('strong', {}, `Ended: ${word}`), ` after ${took(run)}`), run.error && h('p', {}, run.error));
}

/** Says how long a run took. */
export function took(run) {
  return duration((Date.parse(run.ended) - Date.parse(run.started)) / 1000);
}

function progressPart() {
  const bar = h('progress', { max: 1, 'aria-label': 'Progress' });
  const phase = h('p', {}, h('strong', {}, 'Starting …'));
  const figures = h('p', { class: 'quiet small' });
  const current = h('p', { class: 'quiet small path' });
  const word = h('p', { class: 'quiet' });
  let samples = [];
  const show = (status) => {
    samples = sampled(samples, status);
    const done = shareDone(status);
    if (done === null) bar.removeAttribute('value');
    else bar.value = done;
    fill(phase, h('strong', {}, sentence(status.phase)));
    fill(figures, figuresOf(status, rateOf(samples)));
    fill(current, status.current ?? '');
  };
  const node = h('div', { class: 'stack' }, phase, bar, figures, current, word);
  const end = () => {
    node.hidden = true;
  };
  return { node, show, end, say: (text) => void (word.textContent = text) };
}

function sentence(phase) {
  return phase ? `${phase[0].toUpperCase()}${phase.slice(1)}` : 'Working';
}

function figuresOf(status, speed) {
  const { bytes_done: done, bytes_total: all, items_done: items, items_total: ofItems } = status;
  const said = [
    all > 0 ? `${bytes(done)} of ${bytes(all)}` : bytes(done),
    ofItems > 0 ? `${count(items)} of ${count(ofItems)} entries` : `${count(items)} entries`,
    speed === null ? null : rate(speed),
    `${duration(status.seconds_elapsed)} so far`,
    typeof status.seconds_remaining === 'number' ? `about ${duration(status.seconds_remaining)} left` : null,
  ];
  return said.filter((text) => text !== null).join(' · ');
}

function logPart() {
  const list = h('ol', { class: 'log', tabindex: '0', 'aria-label': 'Log' });
  const node = h('details', { open: true }, h('summary', {}, 'Log'), list);
  node.hidden = true;
  const add = (line) => {
    const said = lineWords(line);
    if (!said || list.childElementCount >= LINES_MAX) return;
    const isAtEnd = list.scrollTop + list.clientHeight >= list.scrollHeight - 20;
    list.append(h('li', { class: said.tone === 'plain' ? null : said.tone }, said.text));
    node.hidden = false;
    if (isAtEnd) list.scrollTop = list.scrollHeight;
  };
  const clear = () => {
    fill(list);
    node.hidden = true;
  };
  return { node, add, clear };
}
