/**
 * Small drawings. What they mean always stands beside them as text.
 */

import { h, svg } from '../lib/dom.js';
import { outcomeWords, stripWords } from '../lib/runs.js';
import { moment } from '../lib/format.js';

const SHAPES = {
  good: 'M8 0a8 8 0 1 1 0 16A8 8 0 0 1 8 0zm3.6 4.9L7 9.5 4.6 7.1 3.2 8.5 7 12.3l6-6z',
  bad: 'M8 0a8 8 0 1 1 0 16A8 8 0 0 1 8 0zM7 3.5v6h2v-6zm0 7.2v2h2v-2z',
  warn: 'M8 .5 16 15H0zM7 6v4.5h2V6zm0 5.5v2h2v-2z',
  busy: 'M8 0a8 8 0 1 1-8 8h2a6 6 0 1 0 6-6z',
  plain: 'M8 0a8 8 0 1 1 0 16A8 8 0 0 1 8 0zm0 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2z',
  skipped: 'M2 7h12v2H2z',
};

/** Draws the mark of a tone. */
export function mark(tone) {
  return svg(
    'svg',
    { viewBox: '0 0 16 16', 'aria-hidden': 'true', class: tone === 'busy' ? 'spin' : null },
    svg('path', { d: SHAPES[tone] ?? SHAPES.plain, 'fill-rule': 'evenodd' }),
  );
}

/** Shows a state by its mark and its word. */
export function state({ tone, word }) {
  return h('span', { class: `state ${tone === 'plain' ? 'plain-state' : tone}` }, mark(tone), word);
}

/** Shows how the last runs came out, the oldest first, as a row of bars. */
export function strip(runs) {
  const bar = (run, index) => {
    const { tone, word } = outcomeWords(run.outcome);
    const height = tone === 'good' ? 14 : 20;
    const title = svg('title', {}, `${moment(run.started)}: ${word}`);
    return svg('rect', { x: index * 9, y: 20 - height, width: 6, height, rx: 1.5, class: tone }, title);
  };
  return h(
    'div',
    { class: 'strip' },
    svg('svg', { viewBox: `0 0 ${Math.max(1, runs.length * 9 - 3)} 20`, role: 'img', 'aria-label': stripWords(runs) }, runs.map(bar)),
  );
}

/** Draws the sign of Larder. */
export function brandMark() {
  return svg(
    'svg',
    { viewBox: '0 0 32 32', 'aria-hidden': 'true' },
    svg('rect', { width: 32, height: 32, rx: 7, fill: '#0d6b4f' }),
    svg('path', { fill: '#fff', d: 'M11 6h10v3H11zM10 11h12c2 1 3 2.6 3 5v8c0 1.4-.9 2-2 2H9c-1.1 0-2-.6-2-2v-8c0-2.4 1-4 3-5z' }),
    svg('path', { fill: '#0d6b4f', d: 'M10 17h12v5H10z' }),
  );
}

/** Draws the arrow of something that folds out. */
export function arrow() {
  return svg('svg', { viewBox: '0 0 10 10', 'aria-hidden': 'true' }, svg('path', { d: 'M2.5 0 8 5l-5.5 5z' }));
}
